"""What encodes parts: an encoder with its engine, in a process of its own. The bits are those that a server gives."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from birnn_bulk.part_file import Entry, write_part
from birnn_bulk.plan import BulkError, Part
from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError
from birnn_bundle.manifest import Manifest
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import Tokenized, Tokenizer
from birnn_service.encoded import assemble, in_form, noted_in
from birnn_service.engine.engine import Device, EngineInfo, EngineName, Output, Precision
from birnn_service.engine.loading import load_engine
from birnn_service.errors import StartupError
from birnn_service.limit_settings import LimitSettings
from birnn_service.queueing.cost import profile
from birnn_service.queueing.request import Computed
from birnn_service.reading import reading_of
from birnn_service.vectors import ElementType

MAX_BYTES = LimitSettings().max_sequence_bytes


@dataclass(frozen=True, slots=True)
class Job:
    """What every process that computes has to know.

    Attributes:
        bundle: Folder of the encoder.
        digest: SHA-256 of its manifest, which must not have changed.
        device, engine, precision: As `birnn serve` takes them.
        element_type: Of the vectors.
        normalize: Scale each vector to length 1.
        truncate: Cut long sequences instead of failing them.
        out: Folder of the output.
    """

    bundle: Path
    digest: str
    device: Device
    engine: EngineName
    precision: Precision
    element_type: ElementType
    normalize: bool
    truncate: bool
    out: Path


@dataclass(frozen=True, slots=True)
class Task:
    """A part to encode.

    Attributes:
        plan: Digest of the plan.
        part: Which records.
        input: Name of their file.
        rows: The records; see `birnn_bulk.rows.Rows`.
    """

    plan: str
    part: Part
    input: str
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some sequences cost, by the measured cost of batches.

    Attributes:
        rows: How many they were.
        seconds: Of one processor.
        tokens: Of all of them.
        failed: How many have no vector.
    """

    rows: int
    seconds: float
    tokens: int
    failed: int


class BulkEncoder:
    """Encodes parts and writes their files. It is an encoder to `birnn_service` as those of a server are.

    Attributes:
        instance: Of no use here: there is one encoder only.
        manifest: What the bundle says about itself.
        tokenizer: What reads sequences.
        info: What computes.
    """

    def __init__(self, job: Job) -> None:
        """Load the bundle, and have its engine pass the golden gate.

        Raises:
            BulkError: It cannot be loaded as asked, or is not the bundle that was planned with.
        """
        try:
            bundle = Bundle.load(job.bundle)
            if bundle.digest != job.digest:
                raise BulkError(f"{job.bundle}: is not the same bundle as when the job began")
            if bundle.manifest.features:
                raise BulkError(f"{bundle.label} reads float features, and files hold texts")
            self._engine = load_engine(bundle, job.device, engine=job.engine, precision=job.precision).engine
        except (BundleError, StartupError) as error:
            raise BulkError(str(error)) from error
        self._job, self._bundle = job, bundle
        self.instance = 0
        self.manifest: Manifest = bundle.manifest
        self.tokenizer: Tokenizer = bundle.tokenizer
        self.info: EngineInfo = self._engine.info
        # On CPUs there is a process for each core.
        slots = 1 if self.info.device == "cpu" else self.info.slots
        self._pool = ThreadPoolExecutor(slots) if slots > 1 else None

    def describe(self) -> EngineInfo:
        """What computes."""
        return self.info

    def encode(self, task: Task) -> Entry:
        """Encode a part and write its file.

        Raises:
            OSError: It cannot be written.
        """
        sequences = task.rows.column(1).to_pylist()
        tokenized = self._tokenize(sequences)
        order = _distinct_by_length(tokenized.batch)
        computed = Computed(self._vectors(tokenized.batch, order), 0.0, 0.0)
        assembled = assemble(self, tokenized, noted_in(tokenized), computed, Output.POOLED, 0.0)
        encoded = in_form(assembled, self._job.element_type, normalize=self._job.normalize)
        entry = Entry(
            plan=task.plan,
            part=task.part.number,
            input=task.input,
            start=task.part.start,
            stop=task.part.stop,
            input_digest=digest_of(sequences),
            encoder_digest=self._bundle.digest,
            engine=self.info.label,
            distinct=len(order.rows),
            failed=len(encoded.errors),
            noticed=len(encoded.notices),
        )
        write_part(self._job.out, entry, task.rows, encoded)
        return entry

    def estimate(self, rows: pa.Table) -> Estimate:
        """What records would cost in the batches in which they would run, without running them."""
        tokenized = self._tokenize(rows.column(1).to_pylist())
        lengths = tokenized.batch.lengths[_distinct_by_length(tokenized.batch).rows]
        cost = profile(self._engine, Output.POOLED, self.manifest.max_length)
        seconds = sum(cost.batch_seconds(lengths[start:end]) for start, end in self._batches(lengths))
        return Estimate(len(rows), seconds, tokenized.batch.tokens, len(tokenized.errors))

    def _tokenize(self, sequences: list[bytes]) -> Tokenized:
        reading = reading_of(self, sequences, truncate=self._job.truncate, max_bytes=MAX_BYTES)
        return reading.read(0, len(sequences))

    def _vectors(self, batch: RaggedBatch, order: "_Order") -> NDArray[np.float32]:
        """Vectors of all sequences, computed in batches of like lengths, each sequence once."""
        vectors = np.empty((len(batch), self.manifest.dimension), dtype=np.float32)
        ordered = batch.take(order.rows)

        def run(stretch: tuple[int, int]) -> None:
            start, end = stretch
            vectors[order.rows[start:end]] = self._engine.run(ordered.between(start, end), Output.POOLED)

        for _ in (self._pool.map if self._pool else map)(run, self._batches(ordered.lengths)):
            pass
        vectors[order.copies] = vectors[order.originals]
        return vectors

    def _batches(self, ordered: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Batches, each from one position of the ordered lengths to another.

        Parts are long enough for neighbors to have like lengths. The planner of the service would ask what batches cost
        on this machine, and the last bits of an engine that pads may depend on how rows are divided.
        """
        most = self.info.max_rows
        return ((start, min(start + most, len(ordered))) for start in range(0, len(ordered), most))


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """How sequences of a part are computed.

    Attributes:
        rows: Positions of those that differ, by ascending length [k].
        copies: Positions of those that equal an earlier one [n - k].
        originals: Of each copy the one that it equals.
    """

    rows: NDArray[np.intp]
    copies: NDArray[np.intp]
    originals: NDArray[np.intp]


def _distinct_by_length(batch: RaggedBatch) -> _Order:
    first: dict[bytes, int] = {}
    found = np.array([first.setdefault(key, row) for row, key in enumerate(batch.keys())], dtype=np.intp)
    own = found == np.arange(len(batch))
    distinct, copies = np.flatnonzero(own), np.flatnonzero(~own)
    return _Order(distinct[np.argsort(batch.lengths[distinct], kind="stable")], copies, found[copies])


def digest_of(sequences: list[bytes]) -> str:
    """SHA-256 over the sequences of a part: their lengths as little-endian int64, and then all their bytes."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype="<i8")
    digest = hashlib.sha256(lengths.tobytes())
    digest.update(b"".join(sequences))
    return digest.hexdigest()
