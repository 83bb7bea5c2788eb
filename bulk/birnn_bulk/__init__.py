"""`birnn bulk`: jobs too large for calls to a service, part by part, with an engine in each process that computes."""
