"""The same guest and host in virtual time, by costs."""
