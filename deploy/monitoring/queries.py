"""PromQL for panels: what the dashboard asks Prometheus."""

from collections.abc import Mapping

# What the variables at the top select, as matchers of series about servers, and of those about encoders.
SERVERS = 'job=~"$job",instance=~"$instance"'
ENCODERS = f'{SERVERS},encoder=~"$encoder"'
RATE = "[$__rate_interval]"
VERSION = "{{encoder}}/{{version}}"
BY_VERSION = "encoder, version"

Queries = Mapping[str, str]
"""PromQL by legend."""


def total(series: str, matchers: str, by: str = "") -> str:
    """The rate of a counter, or the value of a gauge without `_total`; the sum of all its series."""
    value = f"{series}{{{matchers}}}"
    value = f"rate({value}{RATE})" if series.endswith(("_total", "_count")) else value
    return f"sum by ({by}) ({value})" if by else f"sum({value})"


def quantile(share: float, series: str, matchers: str, by: str = "") -> str:
    """A quantile of a histogram over the time of a step, by further labels."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share:g}, sum by ({labels}) (rate({series}_bucket{{{matchers}}}{RATE})))"


def quantiles(series: str, matchers: str, by: str = "") -> Queries:
    """The median and two higher quantiles of a histogram, with legends."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if label)
    return {f"p{percent} {legend}".strip(): quantile(percent / 100, series, matchers, by) for percent in (50, 95, 99)}


def mean(series: str, matchers: str, by: str) -> str:
    """The mean of what a histogram has seen."""
    parts = [f"sum by ({by}) (rate({series}_{part}{{{matchers}}}{RATE}))" for part in ("sum", "count")]
    return " / ".join(parts)
