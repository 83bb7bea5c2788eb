"""An option type for finite numbers."""

import math
from typing import Any

import click


class FiniteFloatRange(click.FloatRange):
    """A `click.FloatRange` that rejects inf and nan. The bounds of a range do not exclude nan."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Fails if the value is not a finite number or is out of range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number; leave the option out for its default", param, ctx)
        return number
