"""Asks processes of their own what may crash, hang or be missing."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import Any

Answer = dict[str, Any]
# What imports a large library on a busy machine, and much more than that takes.
PATIENCE_SECONDS = 120.0


class ProbeError(Exception):
    """A probe did not come to its end; says how it ended."""

    def __init__(self, message: str, answers: list[Answer]) -> None:
        """Keep what it had answered before."""
        super().__init__(message)
        self.answers = answers


def ask(task: str, patience: float = PATIENCE_SECONDS, **arguments: Any) -> list[Answer]:
    """All answers of a probe; see `probe.TASKS`.

    Raises:
        ProbeError: It raised an exception, crashed, or was not done after `patience` seconds.
    """
    # As for all of the server's processes: what this one can import, that one can.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "birnn_service.doctor.probe"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            text=True,
        )
        end = ""
        try:
            output, _ = process.communicate(json.dumps({"task": task, **arguments}), timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            end = f"not done after {patience:.0f} s"
        answers = [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]
        if end or process.returncode:
            said.seek(0)
            raise ProbeError(end or _how_it_ended(process.returncode, said.read().decode(errors="replace")), answers)
    return answers


def _how_it_ended(code: int, said: str) -> str:
    last = (said.strip().splitlines() or [f"exit status {code}"])[-1]
    # The text of an exception says it; its type is for programmers.
    return f"ended by {signal.Signals(-code).name}" if code < 0 else re.sub(r"^[\w.]+(Error|Exception): ", "", last)
