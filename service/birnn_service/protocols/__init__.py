"""What is spoken: adapters between the messages of a protocol and the pipeline."""
