"""Maps: draws vectors as points in two dimensions."""
