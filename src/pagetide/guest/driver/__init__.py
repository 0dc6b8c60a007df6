"""The drivers of the queues."""
