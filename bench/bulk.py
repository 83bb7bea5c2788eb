"""`python -m bench.bulk`: a job that is killed twice ends complete, with a server's bits, as fast as its engine."""

import json
import multiprocessing
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

import birnn
from bench.machine import ROOT
from bench.results import OUT, write_result
from bench.sequences import OPTION
from bench.soak import growth_of, resident_mib, serving
from birnn_bulk.encoders import bundle_folder
from birnn_bundle.bundle import Bundle
from birnn_bundle.sequences import SequenceFile
from birnn_service.engine.cores import available_cores
from birnn_service.engine.engine import Output, Precision
from birnn_service.engine.loading import load_engine

PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")
# Sequences that the bare engine runs on each core, before and after the job.
BARE_ROWS = 4096
READ_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Speed:
    """Sequences a second of all cores together, and the CPU time of each sequence in microseconds."""

    rate: float
    cpu: float


@click.command()
@OPTION
@OUT
@click.option("--count", type=click.IntRange(min=1000), default=100_000, show_default=True, help="Records of the job.")
@click.option("--encoder", default="smiles-small", show_default=True)
@click.option("--compare", default=20_000, show_default=True, help="Records whose bits are compared with a server's.")
def main(file: Path, out: Path, count: int, encoder: str, compare: int) -> None:
    """Encode COUNT records in float32 and in the fastest precision; a file with fewer is read again from its beginning.

    Exits with 1 if anything is missing, out of order or of other bits, or if memory grew by more than 3 %.
    """
    bundle = Bundle.load(bundle_folder(encoder, str(ROOT / "models")))
    with SequenceFile(file) as lines:
        found = [line.sequence.decode() for line in islice(lines, count)]
    sequences = list(islice(cycle(found), count))
    runs = [_proof(bundle, sequences, precision, compare) for precision in PRECISIONS]
    result = {"encoder": bundle.label, "records": count, "runs": runs}
    write_result(out, "bulk", result, lambda complete: json.dumps(complete["runs"], indent=1))
    sys.exit(not all(run["good"] for run in runs))


def _proof(bundle: Bundle, sequences: list[str], precision: Precision, compare: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="birnn-bulk-") as temporary:
        file, job = Path(temporary, "a.smi"), Path(temporary, "out")
        file.write_text("\n".join(sequences) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "birnn", "bulk", str(file), "-o", str(job), "--encoder", str(bundle.path)]
        # Enough parts to be killed in the midst of them.
        rows = min(8192, len(sequences) // 40)
        command += ["--precision", precision, "--device", "cpu", "--part-rows", str(rows)]
        before = _bare(bundle, sequences, precision)
        killed = [_killed(command, job, len(sequences) // rows * share // 6) for share in (1, 2)]
        speed, growth, memory = _finished(command, job, len(sequences))
        after = _bare(bundle, sequences, precision)
        wrong = sum(_wrong(job, sequences))
        differing, engine = _differing(bundle, job, sequences, precision, compare)
        bare = Speed((before.rate + after.rate) / 2, (before.cpu + after.cpu) / 2)
    return {
        "engine": engine,
        "good": not wrong and not differing and abs(growth) <= 0.03,
        "killed after parts": killed,
        "records missing or out of order": wrong,
        "compared with a server": min(compare, len(sequences)),
        "of other bits": differing,
        "sequences/s": round(speed.rate),
        "sequences/s of the bare engine, before and after": [round(before.rate), round(after.rate)],
        "share of the bare engine's": round(speed.rate / bare.rate, 3),
        "CPU microseconds a sequence": round(speed.cpu, 1),
        "of the bare engine": round(bare.cpu, 1),
        "share by CPU time": round(bare.cpu / speed.cpu, 3),
        "MiB of all processes": round(memory, 1),
        "growth over the second half": round(growth, 4),
    }


def _done(job: Path) -> int:
    return len(list(job.glob("parts/part-*.parquet")))


def _killed(command: list[str], job: Path, parts: int) -> int:
    """Kill a run once this many parts are done; returns how many were."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while _done(job) < parts and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return _done(job)


def _finished(command: list[str], job: Path, count: int) -> tuple[Speed, float, float]:
    """Let a run do the rest: its speed, the growth of its memory, and how much that is at last, in MiB."""
    left = count - sum(pq.read_metadata(path).num_rows for path in job.glob("parts/part-*.parquet"))
    # Its first children have ended by themselves after they were orphaned.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    memory: list[tuple[int, float]] = []
    while process.poll() is None:
        try:
            memory.append((len(memory), resident_mib(process.pid)))
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
        time.sleep(READ_SECONDS)
    assert process.stderr is not None
    told = process.stderr.read()
    if process.returncode not in (0, 1):
        raise click.ClickException(told)
    # The command's own rate: since its workers began.
    rate = float(told.partition(" records at ")[2].partition("/s")[0].replace(",", ""))
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    steady = memory[len(memory) // 10 : -4] or memory
    return Speed(rate, 1e6 * cpu / left), growth_of(steady), steady[-1][1]


def _bare(bundle: Bundle, sequences: list[str], precision: Precision) -> Speed:
    """The engine alone, a process on each core, on batches of like lengths that have been tokenized."""
    workers = available_cores()
    texts = [sequences[index :: max(workers, len(sequences) // BARE_ROWS)][:BARE_ROWS] for index in range(workers)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found = pool.starmap(_bare_run, [(bundle.path, text, precision) for text in texts], chunksize=1)
    rows = sum(rows for rows, _, _ in found)
    return Speed(rows / max(wall for _, wall, _ in found), 1e6 * sum(cpu for _, _, cpu in found) / rows)


def _bare_run(path: Path, sequences: list[str], precision: Precision) -> tuple[int, float, float]:
    bundle = Bundle.load(path)
    engine = load_engine(bundle, "cpu", precision=precision).engine
    batch = bundle.tokenizer.tokenize(sequences, bundle.manifest.max_length).batch
    ordered = batch.take(np.argsort(batch.lengths, kind="stable"))
    most = engine.info.max_rows
    batches = [ordered.between(start, min(start + most, len(ordered))) for start in range(0, len(ordered), most)]
    engine.run(batches[-1], Output.POOLED)
    wall, cpu = time.perf_counter(), time.process_time()
    for each in batches:
        engine.run(each, Output.POOLED)
    return len(ordered), time.perf_counter() - wall, time.process_time() - cpu


def _wrong(job: Path, sequences: list[str]) -> Iterator[int]:
    """How many records of each part are missing or not in their place; all of them where there is no manifest."""
    manifest = json.loads((job / "manifest.json").read_text(encoding="utf-8"))
    yield abs(manifest["records"] - len(sequences))
    position = 0
    for path in sorted(job.glob("parts/*")):
        table = pq.read_table(path, columns=["line", "sequence"])
        lines, texts = table.column("line").to_pylist(), table.column("sequence").to_pylist()
        expected = [text.split()[0] if text else "" for text in sequences[position : position + len(texts)]]
        yield sum(
            (line, text) != (position + row, wanted)
            for row, (line, text, wanted) in enumerate(zip(lines, texts, expected, strict=True), start=1)
        )
        position += len(texts)
    yield abs(position - len(sequences))


def _differing(bundle: Bundle, job: Path, sequences: list[str], precision: Precision, compare: int) -> tuple[int, str]:
    """How many of some records from all over the job have other bits than a server's, and what computed there."""
    step = max(1, len(sequences) // compare)
    chosen = range(0, len(sequences), step)
    with (
        serving(["--precision", precision, "--device", "cpu"]) as (_, address),
        birnn.Client(address) as client,
    ):
        name, version = bundle.label.split("/")
        replies = [reply.vectors for reply in client.stream((sequences[row] for row in chosen), name, version)]
        engine = json.loads((job / "manifest.json").read_text(encoding="utf-8"))["engines"]
    expected = np.concatenate(replies)
    differing, start, place = 0, 0, 0
    for path in sorted(job.glob("parts/*")):
        vectors = _vectors(path)
        rows = np.array([row - start for row in chosen[place:] if row < start + len(vectors)], dtype=np.intp)
        wanted = expected[place : place + len(rows)]
        found = vectors[rows]
        good = ~np.isnan(wanted[:, 0])
        differing += int((found[good].view(np.uint32) != wanted[good].view(np.uint32)).any(axis=1).sum())
        start, place = start + len(vectors), place + len(rows)
    return differing + abs(place - len(chosen)), "; ".join(engine)


def _vectors(path: Path) -> NDArray[np.float32]:
    column = pq.read_table(path, columns=["embedding"]).column("embedding").combine_chunks()
    return np.asarray(column.values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, column.type.list_size)


if __name__ == "__main__":
    main()
