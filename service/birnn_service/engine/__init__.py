"""Engines: what runs a ragged batch."""
