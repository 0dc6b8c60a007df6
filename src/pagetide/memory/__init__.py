"""Guest RAM: the memory itself, the map from guest-physical addresses to it, and what of it is resident."""
