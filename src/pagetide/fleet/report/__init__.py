"""What came of a fleet as one HTML page."""
