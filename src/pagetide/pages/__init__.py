"""Reports as one HTML page that needs nothing else: its frame, its style, and pictures in its colours."""
