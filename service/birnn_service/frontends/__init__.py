"""Several front-end processes, which take calls, in front of the one process that owns the engines."""
