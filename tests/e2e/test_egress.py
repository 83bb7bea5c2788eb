"""A server makes no connection that nobody asked for, and writes nothing outside of its cache folder."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import birnn
from tests.e2e.server_process import MODELS, running

CONNECTING = ("connect", "sendto", "sendmsg", "sendmmsg")
OPENING = ("open", "openat", "openat2")
CREATING = ("creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2")
LINKING = ("link", "linkat", "symlink", "symlinkat")
# What would make onnxruntime keep quiet by itself, and prove nothing here.
QUIET = ("CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY")


@dataclass
class Traced:
    """What the processes of a server did.

    Attributes:
        connections: Calls of `connect`, and messages sent to an address, as strace writes them.
        written: Files and folders that were created, opened to be written, linked or renamed, devices left out.
    """

    connections: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    @classmethod
    def read(cls, trace: Path) -> "Traced":
        """Read what strace has written."""
        traced = cls()
        for line in trace.read_text(errors="replace").splitlines():
            name = line.partition(" ")[2].lstrip().partition("(")[0]
            if name in CONNECTING:
                # A message without an address goes over a connection that a client has opened.
                traced.connections += [line] if name == "connect" or "sa_family" in line else []
            elif " = -1 E" not in line and (name not in OPENING or re.search("O_WRONLY|O_RDWR|O_CREAT", line)):
                # Everything is named absolutely here, or by a folder's descriptor, which strace shows as <its path>.
                folder = re.search(r"\((?:AT_FDCWD|\d+)<([^>]*)>", line)
                traced.written += [Path(folder[1] if folder else "/", path) for path in re.findall(r'"([^"]*)"', line)]
        traced.written = [path for path in traced.written if not path.is_relative_to("/dev")]
        return traced


@pytest.fixture(scope="module")
def strace() -> str:
    """strace, which can follow a process here."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run([program, "-f", "-o", os.devnull, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"strace cannot follow a process here: {tried.stderr.strip()}")
    return program


def trace_of_a_life(strace: str, folder: Path, *arguments: str) -> Traced:
    """Start a server under strace, encode a little, stop it."""
    trace = folder / "trace"
    places = {"HOME": folder / "home", "TMPDIR": folder / "tmp", "BIRNN_CACHE_DIR": folder / "cache"}
    for place in places.values():
        place.mkdir()
    env = {"PYTHONDONTWRITEBYTECODE": "1", **{name: str(place) for name, place in places.items()}}
    # -D: the server itself is the child, and gets the signals.
    prefix = [
        strace,
        "-D",
        "-f",
        "-y",
        "-q",
        "-s",
        "300",
        "-e",
        "trace=" + ",".join((*CONNECTING, *OPENING, *CREATING, *LINKING)),
        "-e",
        "signal=none",
    ]
    models = folder / "models"
    shutil.copytree(MODELS / "smiles-small", models / "smiles-small")
    with running(models, *arguments, env=env, prefix=[*prefix, "-o", str(trace)]) as server:
        with birnn.Client(server.address) as client:
            assert client.encode(["CCO", "c1ccccc1"], encoder="smiles-small").shape == (2, 512)
            assert client.encode_tokens(["CCO"], encoder="smiles-small")[0].shape == (3, 256)
        assert server.get("/readyz")[0] == 200
        server.terminate()
        assert server.ended() == 0
        # strace writes its last line when the last process has ended, and pads the numbers of processes.
        await_line(trace, rf"^{server.process.pid} +\+\+\+ exited with 0 \+\+\+$")
    return Traced.read(trace)


def await_line(path: Path, pattern: str) -> None:
    for _ in range(1200):
        if re.search(pattern, path.read_text(errors="replace"), re.MULTILINE):
            return
        time.sleep(0.1)
    pytest.fail(f"no line {pattern} in {path}")


@pytest.mark.parametrize(
    "arguments",
    [("--engine", "onnxruntime"), ("--engine", "onnxruntime", "--host", "0.0.0.0", "--insecure", "--frontends", "2")],
    ids=["one-process", "front-ends"],
)
def test_a_server_connects_to_nobody_and_writes_only_into_its_cache_folder(
    arguments: tuple[str, ...], strace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in QUIET:
        monkeypatch.delenv(variable, raising=False)
    traced = trace_of_a_life(strace, tmp_path, *arguments)
    assert traced.connections == []
    assert any(path.is_relative_to(tmp_path / "cache") for path in traced.written), "strace saw nothing"
    # What onnxruntime says of a first run goes through the system's temporary folder, which is left empty.
    allowed = (tmp_path / "cache", tmp_path / "tmp")
    assert [path for path in traced.written if not any(map(path.is_relative_to, allowed))] == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((tmp_path / "home").iterdir()) == []
