"""The native CPU engine's kernels: compiled where there is a compiler, and missing where there is none."""
