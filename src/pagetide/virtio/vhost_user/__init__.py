"""The vhost-user protocol, both ends."""
