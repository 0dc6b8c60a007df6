"""The round times by which a histogram of waits is told; it imports nothing, so that who only tells starts fast."""

ROUND_US = (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000)
"""In microseconds."""
