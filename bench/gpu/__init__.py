"""A machine with a GPU, checked in one go: right numbers, speed of the engine, the server under load, memory."""
