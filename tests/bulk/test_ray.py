"""Jobs on a cluster of Ray with two nodes, of which one is lost."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bulk.jobs import bulk, command, content, environment, molecules
from tests.e2e.server_process import free_port
from tests.service.engine.bundles import small_bundle

pytest.importorskip("ray", reason="needs the extra `ray`")
pytestmark = pytest.mark.slow
PARTS, ROWS = 60, 100


@contextmanager
def node(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node with two places, in a session of its own."""
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, "--num-cpus=2", "--block"]
    words += ["--object-store-memory=100000000", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment() | {"RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        lose(process)


def lose(process: subprocess.Popen[bytes]) -> None:
    """End all processes of a node's session at once, actors included."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == process.pid:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    process.wait()


def nodes_alive(address: str) -> int:
    code = (
        f"import ray; ray.init(address={address!r}, log_to_driver=False, logging_level='error');"
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    return int(done.stdout or 0)


def test_a_job_outlives_one_of_two_nodes(tmp_path: Path) -> None:
    small_bundle(tmp_path)
    (tmp_path / "a.smi").write_text("\n".join(molecules(PARTS * ROWS)))
    job = [tmp_path / "a.smi", "--encoder", tmp_path / "small" / "1", "--part-rows", ROWS, "--device", "cpu"]
    bulk(*job, "-o", tmp_path / "local")
    out, address = tmp_path / "ray", f"127.0.0.1:{free_port()}"
    with (
        # Paths of sockets are short, shorter than those of pytest's folders.
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as logs,
        node("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false", f"--temp-dir={logs}"),
        node(f"--address={address}") as second,
    ):
        while nodes_alive(address) < 2:
            assert second.poll() is None
        # Three workers do not fit on one node.
        words = command(*job, "-o", out, "--ray-address", address, "--workers", 3)
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment())
        while len(list(out.glob("parts/*.parquet"))) < 6:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        lose(second)
        _, told = process.communicate()
    assert process.returncode == 0, told
    assert "a worker was lost" in told
    assert content(out) == content(tmp_path / "local")
