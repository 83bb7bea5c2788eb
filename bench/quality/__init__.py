"""How good frozen vectors are: property prediction with simple heads, invariance, and what they cost to serve."""
