"""Many VMs over weeks: what their hosts hold for them, and what returning free memory would change."""
