"""Training of sequence encoders: objectives, batches, the loop, checkpoints."""
