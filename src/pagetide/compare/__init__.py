"""Every design under every condition, and what that shows."""
