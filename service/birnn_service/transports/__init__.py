"""What listens: servers that take calls and hand them to the endpoint."""
