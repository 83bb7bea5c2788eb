"""Benchmarks: engines, the planner, and other servers beside ours."""
