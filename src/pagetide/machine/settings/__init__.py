"""From options and files to a configuration that fits together."""
