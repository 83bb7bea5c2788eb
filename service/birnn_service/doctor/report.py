"""The report: one page to read, and the same as JSON."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from birnn_bundle.quoting import one_line
from birnn_service.doctor.finding import Device, Finding
from birnn_service.doctor.packages import DISTRIBUTION
from birnn_service.doctor.trials import Trial

# Tokens of the sequences whose speed is printed.
PRINTED_TOKENS = 64
Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out.

    Attributes:
        device: What was asked for.
        findings: On the machine.
        bundles: Name and version of all that were found.
        trials: Bundles on engines.
    """

    device: Device
    findings: list[Finding]
    bundles: list[str]
    trials: list[Trial]

    @property
    def reasons(self) -> list[Finding]:
        """Why the device cannot serve all bundles; empty if it can."""
        broken = [finding for finding in self.findings if finding.status == "broken"]
        good = {trial.bundle for trial in self.trials if trial.verdict == "good"}
        if not broken:
            broken = [self._unserved(bundle) for bundle in self.bundles if bundle not in good]
        return broken

    def to_json(self) -> dict[str, Any]:
        """The whole report."""
        return {
            "version": _version(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "device": self.device,
            "can_serve": not self.reasons,
            "reasons": [asdict(reason) for reason in self.reasons],
            "findings": [asdict(finding) for finding in self.findings],
            "bundles": self.bundles,
            "trials": [trial.to_json() for trial in self.trials],
        }

    def lines(self) -> Iterator[str]:
        """One page of text."""
        yield f"{DISTRIBUTION} {_version()}, Python {platform.python_version()}, {platform.platform()}"
        yield ""
        width = max((len(finding.name) for finding in self.findings), default=0)
        for finding in self.findings:
            yield f"{finding.status:<6}  {finding.name:<{width}}  {one_line(finding.text, 300)}"
            if finding.cure:
                yield f"{'':<6}  {'':<{width}}  -> {finding.cure}"
        if self.trials:
            yield ""
            yield from _table(["encoder", "engine", "golden vectors", "error", "cosine"], map(_gate_row, self.trials))
        if any(trial.sweep for trial in self.trials):
            yield ""
            yield from _speeds(self.trials)
        yield ""
        yield from self._verdict()

    def _verdict(self) -> Iterator[str]:
        if not self.reasons:
            yield f"{self.device} can serve {len(self.bundles)} of {len(self.bundles)} encoders"
            return
        yield f"{self.device} cannot serve:"
        for reason in self.reasons:
            yield f"  {reason.name}: {one_line(reason.text, 500)}"
            if reason.cure:
                yield f"    -> {reason.cure}"

    def _unserved(self, bundle: str) -> Finding:
        tried = [trial for trial in self.trials if trial.bundle == bundle and trial.verdict != "not allowed"]
        # Engines agree on what is wrong with a bundle, and differ where they themselves are the trouble.
        reasons = dict.fromkeys(trial.reason for trial in tried)
        cure = "export or copy it anew; `birnn models verify` looks at one bundle"
        return Finding(bundle, "broken", "; ".join(reasons) or "it could not be fetched", cure)


def _gate_row(trial: Trial) -> Row:
    engine = trial.runs or f"{trial.engine}, {trial.device}, {trial.precision}"
    if trial.verdict != "good":
        return [trial.bundle, engine, f"{trial.verdict}: {one_line(trial.reason, 120)}"]
    error = max(trial.pooled_error, trial.tokens_error)
    return [trial.bundle, engine, "good", f"{error:.1e}", f"{trial.cosine:.7f}"]


def _speeds(trials: Sequence[Trial]) -> Iterator[str]:
    """Sequences per second by rows of a batch."""
    rates = {
        (trial.bundle, trial.runs): {
            run["rows"]: run["sequences_per_second"] for run in trial.sweep if run["tokens"] == PRINTED_TOKENS
        }
        for trial in trials
        if trial.sweep
    }
    sizes = sorted({rows for found in rates.values() for rows in found})
    yield f"sequences/s of {PRINTED_TOKENS} tokens, in batches of so many rows (on a CPU those of one core):"
    yield from _table(
        ["encoder", "engine", *map(str, sizes)],
        (
            [*names, *(f"{found[rows]:,.0f}" if rows in found else "-" for rows in sizes)]
            for names, found in rates.items()
        ),
    )


def _table(header: Row, rows: Iterator[Row]) -> Iterator[str]:
    """Lines of columns as wide as what they hold; the last one of a row may be longer."""
    lines = [header, *rows]
    widths = [
        max((len(line[column]) for line in lines if column < len(line) - 1), default=len(name))
        for column, name in enumerate(header)
    ]
    for line in lines:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)).rstrip()


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed)"
