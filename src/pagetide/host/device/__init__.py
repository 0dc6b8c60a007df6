"""The balloon device: its queues, and what is done for what comes in them."""
