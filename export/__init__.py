"""The PyTorch side: encoders, training, checkpoints, the ONNX graphs and their verification."""
