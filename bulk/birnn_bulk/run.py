"""One run of a job: what is planned, what of it is done, and doing the rest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from birnn.cli.file_options import Reading
from birnn_bulk.bulk_encoder import Estimate, Job, Task
from birnn_bulk.crew import Crew, Worker
from birnn_bulk.inputs import Found, measured, open_rows
from birnn_bulk.output import Manifest, complete, done, locked
from birnn_bulk.part_file import Entry
from birnn_bulk.plan import PLAN_FILE, BulkError, Part, Plan, Recipe, Slice, default_part_rows
from birnn_bulk.process_worker import ProcessWorker
from birnn_bulk.progress import Progress
from birnn_bulk.ray_worker import RayCluster, RayWorker
from birnn_bundle.manifest import Manifest as BundleManifest
from birnn_service.engine.cores import available_cores
from birnn_service.engine.engine import EngineInfo

# A sample of this many parts, with this many records of each, tells what the rest will cost.
SAMPLE_PARTS, SAMPLE_ROWS = 8, 512


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command asks for.

    Attributes:
        files: The input.
        reading: How it is read.
        keep: Columns of it that are written beside the vectors.
        job: What workers do.
        manifest: Of the bundle.
        part_rows: Most records of a part; None for a default by the size of a vector.
        limit: Most records; None for all.
        slice: Which share of the parts; None for all.
        workers: How many; None for as many as there is room for.
        ray_address: Of a cluster; None for processes of this machine.
    """

    files: Sequence[Found]
    reading: Reading
    keep: tuple[str, ...]
    job: Job
    manifest: BundleManifest
    part_rows: int | None
    limit: int | None
    slice: Slice | None
    workers: int | None
    ray_address: str | None


class BulkRun:
    """A context in which a job is planned and done.

    Args:
        wanted: What is asked for.
        writes: Whether the folder is written to; where not, a plan is made but not kept.

    Attributes:
        folder: Of the output.
        vector_bytes: Of one vector, as it is written.
        plan: Of the whole job.
        info: What computes.
        workers: How many workers there are.
        parts: Those of this run.
        missing: Those of them that are not done.

    Raises:
        BulkError: The job cannot be done as asked.
    """

    def __init__(self, wanted: Wanted, *, writes: bool) -> None:
        self._wanted = wanted
        self.folder = wanted.job.out
        self.vector_bytes = wanted.manifest.dimension * np.dtype(wanted.job.element_type.value).itemsize
        with ExitStack() as stack:
            stack.enter_context(locked(self.folder, shared=wanted.slice is not None) if writes else nullcontext())
            start, places = self._starter(stack)
            self._crew = stack.enter_context(Crew(start))
            self.info: EngineInfo = self._crew.call("describe")
            self.workers = wanted.workers or places or (available_cores() if self.info.device == "cpu" else 1)
            self.plan = self._plan(writes)
            self.parts = self.plan.parts() if wanted.slice is None else wanted.slice.of(self.plan.parts())
            found = {entry.part: entry for entry in done(self.folder, self.plan.digest, self.parts)}
            self.missing = [part for part in self.parts if part.number not in found]
            self._entries: list[Entry] = list(found.values())
            self._stack = stack.pop_all()

    def __enter__(self) -> "BulkRun":
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    @property
    def failed(self) -> int:
        """Records without a vector in the parts of this run that are done."""
        return sum(entry.failed for entry in self._entries)

    def encode(self) -> float:
        """Encode the missing parts; returns the sequences a second.

        Raises:
            BulkError: One cannot be encoded; those that are done stay.
        """
        records = sum(part.rows for part in self.parts)
        with Progress(records - sum(part.rows for part in self.missing), records) as progress:
            for entry in self._crew.encode(self._tasks(self.missing), self.workers):
                self._entries.append(entry)
                progress.add(entry.stop - entry.start)
            return progress.rate

    def complete(self) -> Manifest | None:
        """Write the manifest if the job is complete; None where parts are missing, of other slices too."""
        return complete(self.folder, self.plan)

    def estimate(self) -> Estimate:
        """What some of the missing records cost, from all over the input."""
        sample = self.missing[:: max(1, len(self.missing) // SAMPLE_PARTS)][:SAMPLE_PARTS]
        starts = [Part(p.number, p.input, p.start, min(p.stop, p.start + SAMPLE_ROWS)) for p in sample]
        found = [self._crew.call("estimate", task.rows) for task in self._tasks(starts)]
        return Estimate(
            sum(each.rows for each in found),
            sum(each.seconds for each in found),
            sum(each.tokens for each in found),
            sum(each.failed for each in found),
        )

    def _starter(self, stack: ExitStack) -> tuple[Callable[[], Worker], int | None]:
        """What starts workers, and for how many there is room, where that is known."""
        job = self._wanted.job
        if self._wanted.ray_address is None:
            return lambda: ProcessWorker(job), None
        cluster = RayCluster(self._wanted.ray_address, job)
        stack.callback(cluster.close)
        return lambda: RayWorker(cluster), cluster.places

    def _plan(self, writes: bool) -> Plan:
        wanted, job = self._wanted, self._wanted.job
        known = _plan_in(self.folder)
        before = known.inputs if known is not None and len(known.inputs) == len(wanted.files) else None
        plan = Plan(
            recipe=Recipe(
                encoder=f"{wanted.manifest.name}/{wanted.manifest.version}",
                encoder_digest=job.digest,
                precision=self.info.precision,
                element_type=job.element_type.value,
                normalize=job.normalize,
                truncate=job.truncate,
                column=wanted.reading.column,
                header=wanted.reading.header,
                delimiter=wanted.reading.delimiter,
                kind=wanted.reading.kind,
                keep=list(wanted.keep),
            ),
            inputs=[
                measured(file, wanted.reading, wanted.keep, before[place] if before else None)
                for place, file in enumerate(wanted.files)
            ],
            part_rows=wanted.part_rows or default_part_rows(wanted.manifest.dimension),
            limit=wanted.limit,
        )
        return plan.agreed(self.folder) if writes or known is not None else plan

    def _tasks(self, parts: Sequence[Part]) -> Iterator[Task]:
        """The records of parts, each file of them read once."""
        # Once: the digest is over the whole plan, which may name many files.
        wanted, digest = self._wanted, self.plan.digest
        for place, group in groupby(parts, key=lambda part: part.input):
            rows, position = open_rows(wanted.files[place], wanted.reading, wanted.keep), 0
            try:
                for part in group:
                    rows.skip(part.start - position)
                    table = rows.take(part.rows)
                    if len(table) < part.rows:
                        raise BulkError(f"{wanted.files[place].name}: ends before part {part.number}; it has changed")
                    yield Task(digest, part, self.plan.inputs[place].name, table)
                    position = part.stop
            finally:
                rows.close()


def _plan_in(folder: Path) -> Plan | None:
    """The plan that a folder holds; one that cannot be read is complained of later, when it is wanted."""
    try:
        return Plan.model_validate_json((folder / PLAN_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
