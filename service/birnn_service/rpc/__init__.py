"""The gRPC services: thin adapters over the encoder pool."""
