"""Jobs that are killed: what is done stays, the rest is done later, and no bit shows it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from birnn.cli.main import main
from tests.bulk.jobs import command, content, environment, molecules
from tests.service.engine.bundles import small_bundle

PARTS, ROWS = 40, 50


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Arguments of a job, but for its output."""
    folder = tmp_path_factory.mktemp("job")
    small_bundle(folder)
    (folder / "a.smi").write_text("\n".join([*molecules(PARTS * ROWS - 2), "C%", ""]) + "\n")
    return [folder / "a.smi", "--encoder", folder / "small" / "1", "--part-rows", ROWS]


@pytest.fixture(scope="module")
def uninterrupted(job: list[object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert f"{PARTS * ROWS:,} records" in run(*job, "-o", out, status=1)
    found = content(out)
    assert len([name for name in found if name.endswith(".parquet")]) == PARTS
    assert found["dead-letters.csv"].count(b"\n") == 3
    return found


def run(*arguments: object, status: int = 0) -> str:
    """Run the command here, with one worker; returns what it told."""
    done = CliRunner().invoke(main, ["bulk", *map(str, arguments), "--workers", "1"])
    assert done.exit_code == status, done.output
    return done.output


def done(out: Path) -> int:
    return len(list(out.glob("parts/*.parquet")))


def started(job: list[object], out: Path, more: int) -> subprocess.Popen[bytes]:
    """A run that has done `more` parts, and is in the midst of the next ones."""
    before = done(out)
    process = subprocess.Popen(command(*job, "-o", out), stderr=subprocess.DEVNULL, env=environment())
    while done(out) < before + more:
        assert process.poll() is None, f"the run has ended with {done(out)} parts"
        time.sleep(0.002)
    return process


def children(process: subprocess.Popen[bytes]) -> list[int]:
    # Each thread has a list of those that it has started.
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for each in lists for pid in each.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_job_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    job: list[object], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = started([*job, "--workers", 1], out, 5)
        workers = children(process)
        process.send_signal(number)
        process.wait()
        assert 0 < done(out) < PARTS
        assert not (out / "manifest.json").exists()
        # Nobody is left behind.
        while any(is_alive(worker) for worker in workers):
            time.sleep(0.01)
    # What a power cut may leave of a file, and a kill.
    victim = sorted(out.glob("parts/*.parquet"))[1]
    victim.write_bytes(victim.read_bytes()[:1000])
    (out / "parts" / ".birnn-1-00000000.partial").write_bytes(b"PAR1")
    # The system kills a worker: its part is done by another.
    process = started([*job, "--workers", 2], out, 2)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(process)}
    os.kill(next(pid for pid, words in commands.items() if b"spawn_main" in words), signal.SIGKILL)
    assert process.wait() == 1
    assert content(out) == uninterrupted


def test_shares_make_the_same_output_in_any_order(
    job: list[object], uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(*job, "-o", out, "--plan")
    assert set(content(out)) == {"plan.json", ".lock"}
    assert "complete once those of all other tasks are" in run(*job, "-o", out, "--part", "1/2", status=1)
    assert "complete: " in run(*job, "-o", out, "--part", "0/2")
    assert content(out) == uninterrupted
