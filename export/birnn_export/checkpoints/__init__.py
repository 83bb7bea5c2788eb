"""Checkpoints that people already have: weights of PyTorch, of Keras and from scratch, found, read and adopted."""
