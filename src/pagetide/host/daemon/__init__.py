"""The server: many guests, their sockets, and who runs it."""
