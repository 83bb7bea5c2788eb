"""A load test: calls sent at scheduled times, and their outcomes."""
