"""Files that were damaged at random, disks that fill up, and runs that are ended at any moment."""

import gzip
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from birnn_bundle.corpus import read_corpus
from birnn_bundle.sequences import SequenceFile, SequenceFileError
from tests.chaos.outcomes import attack
from tests.client.fake_service import serving

FORMATS = ["v.npy", "v.npz", "v.parquet", "v.csv"]
ROWS = [f"C{index}N,{index},a molecule\n" for index in range(40)]
WHOLE = {
    "a.csv": "".join(["smiles,y,note\n", *ROWS]).encode(),
    "a.tsv": "".join(["smiles,y,note\n", *ROWS]).replace(",", "\t").encode(),
    "a.smi": "".join(ROWS).replace(",", " ").encode(),
    "a.txt": "".join(ROWS).encode("utf-16"),
    "a.csv.gz": gzip.compress("".join(["smiles,y,note\n", *ROWS]).encode()),
}
SPLICES = [b"", b'"', b"\r", b"\n", b"\x00", b",", b";", b"\xff", b"\xef\xbb\xbf", b'"\n', b"\x1b[2J"]


def mutations(whole: bytes, seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            place = dice.randrange(len(content))
            content[place : place + dice.randint(0, 4)] = dice.choice(SPLICES)
        yield bytes(content)


@pytest.mark.quick
@pytest.mark.parametrize("name", WHOLE)
def test_encode_and_train_agree_on_damaged_files(tmp_path: Path, name: str) -> None:
    path, column = tmp_path / name, "smiles" if "sv" in name else None
    with attack(f"mutated {name}") as outcomes:
        for seed in range(5):
            for content in mutations(WHOLE[name], seed):
                path.write_bytes(content)
                try:
                    # What train does for a table whose column is named.
                    with SequenceFile(path, column=column, header=None if column is None else True) as file:
                        lines = list(file)
                    if not any(line.sequence.strip() and line.problem is None for line in lines):
                        raise SequenceFileError("nothing to train on")
                except SequenceFileError:
                    with pytest.raises(SequenceFileError):
                        read_corpus(path, column)
                    outcomes.count("refused")
                    continue
                filled = sum(bool(line.sequence.strip() or line.problem) for line in lines)
                corpus = read_corpus(path, column)
                outcomes.count("answered" if filled == len(corpus.sequences) + len(corpus.problems) else "wrong")
        outcomes.assert_unharmed()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_that_fills_up_keeps_the_old_file_only(tmp_path: Path, small_disk: Path, name: str) -> None:
    (tmp_path / "a.smi").write_text("".join(f"C{index}N\n" for index in range(20_000)))
    (small_disk / name).write_text("old")
    with serving() as service, attack(f"full disk, {name}") as outcomes:
        command = [sys.executable, "-m", "birnn", "encode", "--address", service.address]
        command += ["--file", str(tmp_path / "a.smi"), "--out", str(small_disk / name)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 3, done.stderr
        assert "cannot be written (No space left on device)" in done.stderr
        assert "Exception ignored" not in done.stderr
        assert os.listdir(small_disk) == [name]
        outcomes.count("refused" if (small_disk / name).read_text() == "old" else "lost")
        outcomes.assert_unharmed()


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_that_is_ended_at_any_moment_leaves_all_or_nothing(tmp_path: Path, name: str) -> None:
    source = tmp_path / "a.smi"
    source.write_text("".join(f"C{index}N\n" for index in range(3000)))
    content = source.read_bytes()
    dice = random.Random(0)
    with serving() as service, attack(f"SIGTERM at any moment, {name}") as outcomes:
        command = [sys.executable, "-m", "birnn", "encode", "--address", service.address]
        command += ["--file", str(source), "--out", str(tmp_path / name), "--batch-size", "10"]
        for _ in range(12):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            # The moment only has to vary; every outcome is checked.
            threading.Event().wait(dice.uniform(0.2, 2.5))
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=60)
            assert status in (0, -signal.SIGTERM)
            expected = {"a.smi", name} if status == 0 else {"a.smi"}
            assert set(os.listdir(tmp_path)) in (expected, {"a.smi", name}), status
            assert source.read_bytes() == content
            (tmp_path / name).unlink(missing_ok=True)
            outcomes.count("answered" if status == 0 else "refused")
        outcomes.assert_unharmed()
