"""A load test: calls sent at their own times, and what became of them."""
