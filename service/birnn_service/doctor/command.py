"""`birnn doctor`."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from birnn_bundle.atomic_file import replace_text
from birnn_service.doctor import machine, packages, software
from birnn_service.doctor.asking import ProbeError
from birnn_service.doctor.finding import Check, Device, Finding, found_by
from birnn_service.doctor.report import Report
from birnn_service.doctor.trials import find_bundles, run_trials


@click.command()
@click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="auto",
    show_default=True,
    help="Device that must be able to serve; for auto a CPU is enough.",
)
@click.option(
    "--models",
    envvar="BIRNN_MODELS",
    help="Encoders to test with, as for `birnn serve` [BIRNN_MODELS].",
)
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the whole report to this file.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Time for measuring the speed of the engines; 0 skips it.",
)
def doctor(device: Device, models: str | None, file: Path | None, seconds: float) -> None:
    """Report what this machine can serve with, what is missing, and the command that fixes it.

    Each engine that works here has to reproduce the golden vectors of each encoder; then its speed is measured.
    Exits with status 0 only if the device can serve all encoders.
    """
    findings = [finding for name, check in _checks(device).items() for finding in found_by(name, check)]
    bundles, finding = _find(models)
    if finding is not None:
        findings.append(finding)
    with_cuda = any(each.name == "onnxruntime" and "CUDAExecutionProvider" in each.text for each in findings)
    # Without a server or CUDA there is nothing to try, and the reason is known.
    works = not any(each.name in ("server", "onnxruntime", "CUDA") and each.status == "broken" for each in findings)
    trials = list(run_trials(bundles, device, with_cuda=with_cuda, seconds=seconds)) if works else []
    report = Report(device, findings, [bundle["bundle"] for bundle in bundles], trials)
    for line in report.lines():
        click.echo(line)
    if file is not None:
        _write(file, report)
    sys.exit(1 if report.reasons else 0)


def _checks(device: Device) -> dict[str, Check]:
    """All checks by name, in the order in which they are reported."""
    return {
        "processor": machine.processor,
        "memory": machine.memory,
        "descriptors": machine.descriptors,
        "folders": machine.folders,
        "front-ends": machine.shared_memory,
        "packages": partial(packages.runtimes, device),
        "server": partial(software.server, device),
        "kernels": partial(software.kernels, device),
        "gRPC front end": software.transport,
        "onnxruntime": partial(software.onnxruntime, device),
        "extras": packages.extras,
    }


def _find(models: str | None) -> tuple[list[dict[str, Any]], Finding | None]:
    """The bundles, or why there are none."""
    cure = "give a folder with --models, or pip install birnn-encoders"
    try:
        bundles = find_bundles(models)
    except ProbeError as error:
        return [], Finding("encoders", "broken", str(error), cure)
    if bundles:
        return bundles, None
    return [], Finding("encoders", "broken", f"there are none in {models or 'the default folder'}", cure)


def _write(file: Path, report: Report) -> None:
    try:
        replace_text(file, json.dumps(report.to_json(), indent=1) + "\n")
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error}") from error
