"""Order 0's memory at order 9's cost, on page traces of a real kernel."""
