"""The page of a load test, and the comparison of several."""
