"""Guests' memory as the host has it: its files, what is resident, and how it is given back."""
