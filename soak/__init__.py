"""What is too long for every change: each part tries new seeds for as long as it is given time."""
