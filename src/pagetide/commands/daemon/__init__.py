"""The daemon's commands: it is started, and asked."""
