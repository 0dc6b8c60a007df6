"""What a planner asks of a fleet: how fast it is answered, and whether it is right."""
