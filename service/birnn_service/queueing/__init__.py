"""Batching: which waiting sequences run together next."""
