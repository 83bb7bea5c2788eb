"""Benchmarks: the parts of the service by themselves, and the whole of it beside other servers."""
