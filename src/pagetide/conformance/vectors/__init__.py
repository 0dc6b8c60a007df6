"""What is asked of a device, one vector a rule."""
