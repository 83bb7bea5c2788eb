"""Entry point of `python -m bench.quality`."""

from bench.quality.command import quality

quality(prog_name="python -m bench.quality")
