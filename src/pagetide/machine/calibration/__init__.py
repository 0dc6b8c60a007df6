"""What the simulation is checked against: live runs, and Linux."""
