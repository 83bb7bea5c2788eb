"""The engines that could serve here, tried on each bundle."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from birnn_service.doctor.asking import PATIENCE_SECONDS, ProbeError, ask
from birnn_service.doctor.finding import Device

# Engine and precision, by device.
ENGINES: dict[Literal["cpu", "cuda"], list[tuple[str, str]]] = {
    "cpu": [("native", "fp32"), ("native", "bf16"), ("native", "int8"), ("onnxruntime", "fp32")],
    "cuda": [("onnxruntime", "fp32"), ("onnxruntime", "fp16")],
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One bundle on one engine.

    Attributes:
        bundle: Name and version.
        device: Where it ran.
        engine: What ran it.
        precision: Of the arithmetic.
        verdict: `good`: it passed the golden gate. `not allowed`: the bundle does not allow the precision. `refused`:
            it did not pass, or could not be loaded. `crashed`: it ended its process, or did not end.
        reason: Why it is not good.
        runs: Engine, device and precision by their full names.
        pooled_error, tokens_error: Largest errors against the golden vectors.
        cosine: The least cosine to them.
        sweep: Seconds of batches, by rows and tokens.
    """

    bundle: str
    device: str
    engine: str
    precision: str
    verdict: Literal["good", "not allowed", "refused", "crashed"]
    reason: str = ""
    runs: str = ""
    pooled_error: float = math.nan
    tokens_error: float = math.nan
    cosine: float = math.nan
    sweep: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For the JSON report, in which what was not measured is null."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def find_bundles(models: str | None) -> list[dict[str, Any]]:
    """The bundles that a server would take: `bundle`, and `path` or `error`.

    Raises:
        ProbeError: There is no such folder, store or package; says so.
    """
    return ask("bundles", models=models)


def run_trials(
    bundles: Sequence[dict[str, Any]], device: Device, *, with_cuda: bool, seconds: float
) -> Iterator[Trial]:
    """Try all bundles that are there on all engines of the device.

    Args:
        bundles: What `find_bundles` found.
        device: For `auto` the CPU, and CUDA if onnxruntime has it.
        with_cuda: Whether it does.
        seconds: For measuring speed, all in all.
    """
    there = [bundle for bundle in bundles if "path" in bundle]
    devices: list[Literal["cpu", "cuda"]] = ["cpu", "cuda"] if with_cuda else ["cpu"]
    plan = [(one, *pair) for one in (devices if device == "auto" else [device]) for pair in ENGINES[one]]
    share = seconds / max(1, len(plan) * len(there))
    for one, engine, precision in plan:
        left = there
        while left:
            trials = _try(left, one, engine, precision, share)
            yield from trials
            left = left[len(trials) :]


def _try(bundles: Sequence[dict[str, Any]], device: str, engine: str, precision: str, seconds: float) -> list[Trial]:
    """The outcomes of the bundles up to the first one that ends the process; of that one at least."""
    patience = (PATIENCE_SECONDS + seconds) * len(bundles)
    asked: dict[str, Any] = {"device": device, "engine": engine, "precision": precision}
    try:
        answers = ask("trials", patience, bundles=list(bundles), seconds=seconds, **asked)
        crash = ""
    except ProbeError as error:
        answers, crash = error.answers, str(error)
    trials = [Trial(**answer, **asked) for answer in answers if "verdict" in answer]
    if crash:
        # What ended the process before it had begun with one ends it for all.
        blamed = bundles[len(trials) :][: 1 if any("begun" in answer for answer in answers) else None]
        trials += [Trial(bundle["bundle"], **asked, verdict="crashed", reason=crash) for bundle in blamed]
    return trials
