"""The wire: split virtqueues, the balloon's constants, and vhost-user."""
