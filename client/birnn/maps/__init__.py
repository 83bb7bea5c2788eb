"""Maps: vectors as points in the plane, to look at."""
