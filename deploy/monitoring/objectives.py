"""What a server promises.

Alerts and the first row of the dashboard follow from these numbers. Set them, and run `make monitoring`.
"""

from dataclasses import dataclass

# Share of calls that do not fail by the server's fault, and share of answers within `SECONDS`.
AVAILABILITY = 0.995
LATENCY = 0.99
SECONDS = 1.0

# Methods that encode. Health checks and listings succeed while nothing else does.
METHODS = "Encode.*|Model.*Infer|POST /v1/embeddings|POST /v2/models/.*/infer"
# The codes that are the server's own fault or say that it is too small; what callers must change does not count.
BAD_CODES = "UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNAVAILABLE"


@dataclass(frozen=True)
class Objective:
    """One promise.

    Attributes:
        name: Of it, in names of rules: `bad_calls`.
        title: What it is about.
        promised: The share of calls that is good.
        ratio: PromQL of the share that is bad in a window, `{window}` in it.
        bad: PromQL of how many were bad in a window.
        failing: What bad calls do, for messages.
    """

    name: str
    title: str
    promised: float
    ratio: str
    bad: str
    failing: str

    @property
    def budget(self) -> float:
        """The share of calls that may be bad."""
        return 1 - self.promised

    def recorded(self, window: str) -> str:
        """The name under which the share of bad calls in a window is recorded."""
        return f"birnn:{self.name}:ratio_rate{window}"


_CALLS = f'birnn_requests_total{{method=~"{METHODS}"}}'
_BAD = f'birnn_requests_total{{method=~"{METHODS}", code=~"{BAD_CODES}"}}'
_ANSWERS = f'birnn_request_seconds_count{{method=~"{METHODS}", code="OK"}}'
_IN_TIME = f'birnn_request_seconds_bucket{{method=~"{METHODS}", code="OK", le="{SECONDS}"}}'


def _each(function: str, series: str) -> str:
    """By job, a function over a window of series; jobs of one name in several namespaces are told apart."""
    escaped = series.replace("{", "{{").replace("}", "}}")
    return f"sum by (namespace, job) ({function}({escaped}[{{window}}]))"


OBJECTIVES = (
    Objective(
        name="bad_calls",
        title="Availability",
        promised=AVAILABILITY,
        ratio=f"{_each('rate', _BAD)} / {_each('rate', _CALLS)}",
        bad=_each("increase", _BAD),
        failing="fail by the server's fault",
    ),
    Objective(
        name="slow_calls",
        title="Latency",
        promised=LATENCY,
        ratio=f"1 - {_each('rate', _IN_TIME)} / {_each('rate', _ANSWERS)}",
        bad=f"{_each('increase', _ANSWERS)} - {_each('increase', _IN_TIME)}",
        failing=f"take longer than {SECONDS:g} s",
    ),
)
