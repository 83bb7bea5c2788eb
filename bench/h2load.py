"""h2load (Debian's nghttp2-client): one gRPC message over and over, by a client in C that costs little."""

import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from google.protobuf.message import Message

from bench.loads import Sample

CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class H2Load:
    """An h2load that is installed.

    It counts replies with HTTP status 200, which failed gRPC calls have, too. So make one call yourself first.
    """

    program: str

    @classmethod
    def find(cls) -> "H2Load | None":
        """The installed one, if there is one."""
        program = shutil.which("h2load")
        return cls(program) if program else None

    def run(
        self,
        address: str,
        path: str,
        message: Message,
        in_flight: int,
        *,
        seconds: float,
        warmup: float,
        prefix: Sequence[str],
        scratch: Path,
    ) -> Sample:
        """Send `message` to the method `path`, `in_flight` calls at a time, for `seconds` or more after `warmup`.

        Raises:
            click.ClickException: It failed, or no call was answered.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        body, log = scratch / "body.bin", scratch / "calls.tsv"
        content = message.SerializeToString()
        # A message of gRPC: not compressed, and its length.
        body.write_bytes(b"\0" + len(content).to_bytes(4, "big") + content)
        log.unlink(missing_ok=True)
        connections = min(CONNECTIONS, in_flight)
        options = ["-D", str(math.ceil(warmup + seconds)), "-c", str(connections), "-m", str(in_flight // connections)]
        options += ["-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        command = [*prefix, self.program, *options, f"--log-file={log}", f"http://{address}{path}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not log.exists():
            raise click.ClickException(f"h2load failed: {done.stderr.strip() or done.stdout.strip()}")
        return read_log(log, warmup)


def read_log(log: Path, warmup: float) -> Sample:
    """What an h2load log says: when each call was sent, in microseconds since the epoch, its status, and its time.

    Raises:
        click.ClickException: It holds no call, or one without HTTP status 200.
    """
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    if failed := next((status for _, status, _ in lines if status != "200"), None):
        raise click.ClickException(f"h2load got HTTP status {failed}")
    if not lines:
        raise click.ClickException("h2load recorded no call")
    calls = np.array([(int(sent), int(sent) + int(taken)) for sent, _, taken in lines]) / 1e6
    try:
        return Sample.of(calls, 1, float(calls[:, 0].min()) + warmup, float(calls[:, 1].max()))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
