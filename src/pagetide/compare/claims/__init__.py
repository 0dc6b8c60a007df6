"""What is claimed of designs, and whether the results bear it out."""
