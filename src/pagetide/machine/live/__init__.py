"""A guest process and a host process on real memory, side by side."""
