"""Whether a balloon device does what is written of it, and what drivers rely on."""
