"""VMs as they are watched by `pagetide top` and by the page of `serve --web`: what is read, how often, what is kept."""
