"""Broken and hostile input, seeded, for everything that reads what others wrote."""
