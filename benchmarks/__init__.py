"""What things cost: `python -m benchmarks` measures, and says which of the figures to be reached were."""
