"""A discrete-event simulation of one device: the real scheduler and other servers' policies on the same load."""
