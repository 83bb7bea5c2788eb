"""Open-loop load generation."""
