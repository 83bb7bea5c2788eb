"""Shadowing: copies of a share of an encoder's traffic go to a candidate version. Callers never get its answers.

The answers of both versions are compared and counted, so a new version can be judged on real traffic before it serves.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_service.call import Call
from birnn_service.catalog import Encoder, Encoders, address_of
from birnn_service.compute import Compute
from birnn_service.encoded import Encoded
from birnn_service.engine.engine import Output
from birnn_service.errors import OverloadedError, ServiceError
from birnn_service.memory_budget import REQUEST_COST, MemoryBudget
from birnn_service.observe.metrics import Metrics
from birnn_service.pipeline import Options, Pipeline
from birnn_service.queueing.priority import Priority
from birnn_service.reading import Sequences
from birnn_service.settings import Settings
from birnn_service.tenants import SHADOW
from birnn_service.vectors import ElementType

logger = logging.getLogger(__name__)

REQUEST_OUTCOMES = ("answered", "failed", "skipped")
SEQUENCE_OUTCOMES = ("compared", "both_failed", "only_candidate_failed", "only_served_failed", "other_width")
# Limits of each process that takes calls. A request beyond any of them is not shadowed, and counts as skipped.
MOST_UNDER_WAY = 4
MEMORY_BYTES = 64 << 20
PATIENCE_SECONDS = 30.0
# Of each request, only this many sequences, the first ones, are shadowed.
MOST_SEQUENCES = 64


@dataclass(slots=True)
class _Sampling:
    """Chooses requests so that a candidate gets its share of the sequences.

    Attributes:
        share: The share of all sequences.
        due: Sequences that should have been taken by now, minus those that were.
    """

    share: float
    due: float = 0.0

    def takes(self, count: int) -> bool:
        """Whether to take a request of `count` sequences."""
        self.due += self.share * count
        if self.due < 0.5 * count:
            return False
        self.due -= count
        return True


class ShadowedPipeline(Pipeline):
    """A pipeline that also sends a share of its answered requests to candidates.

    The caller's reply neither waits for them nor depends on them.
    """

    def __init__(
        self,
        compute: Compute,
        settings: Settings,
        metrics: Metrics,
        encoders: Encoders[Encoder],
        *,
        joint: bool = False,
    ) -> None:
        super().__init__(compute, settings, metrics, joint=joint)
        self._encoders = encoders
        self._samplings = {address: _Sampling(share) for address, share in settings.candidates.items()}
        self._memory = MemoryBudget(MEMORY_BYTES)
        self._tasks: set[asyncio.Task[None]] = set()
        # Labels whose series exist.
        self._counted: set[tuple[str, ...]] = set()

    def close(self) -> None:
        """Cancel shadowed requests in progress, and stop the threads."""
        for task in self._tasks:
            task.cancel()
        super().close()

    async def encode(self, call: Call, sequences: Sequences, options: Options) -> Encoded:
        """See `Pipeline.encode`."""
        encoded = await super().encode(call, sequences, options)
        self._offer(encoded, sequences, options)
        return encoded

    def _offer(self, encoded: Encoded, sequences: Sequences, options: Options) -> None:
        """Send an answered request to those candidates of its encoder whose turn it is."""
        if options.output is not Output.POOLED or options.element_type is not ElementType.FLOAT32:
            return
        # Ids of one vocabulary mean nothing in another.
        if isinstance(sequences, RaggedBatch) and encoded.encoder.manifest.inputs == "ids":
            return
        served = address_of(encoded.encoder)
        for address, sampling in self._samplings.items():
            if address[0] == served[0] and address != served and sampling.takes(len(sequences)):
                self._begin(address, encoded, sequences, options)

    def _begin(self, address: tuple[str, str], encoded: Encoded, sequences: Sequences, options: Options) -> None:
        labels = _labels(encoded, address)
        self._prepare(labels)
        if len(self._tasks) >= MOST_UNDER_WAY:
            self._metrics.shadow_requests.labels(*labels, "skipped").inc()
            return
        most = min(len(sequences), MOST_SEQUENCES)
        part = sequences.take(np.arange(most)) if isinstance(sequences, RaggedBatch) else sequences[:most]
        # Copies: views would keep a large request and its reply in memory until the candidate has answered.
        served = replace(
            encoded,
            values=encoded.values[:most].copy(),
            lengths=encoded.lengths[:most].copy(),
            errors=[error for error in encoded.errors if error.index < most],
            notices=[],
            batch=encoded.batch.between(0, 0),
        )
        task = asyncio.create_task(self._shadow(address, served, part, options))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _prepare(self, labels: tuple[str, ...]) -> None:
        """Begin all series at 0 with the first request: `rate` does not see the first value of a series."""
        if labels in self._counted:
            return
        self._counted.add(labels)
        for outcome in REQUEST_OUTCOMES:
            self._metrics.shadow_requests.labels(*labels, outcome)
        for outcome in SEQUENCE_OUTCOMES:
            self._metrics.shadow_sequences.labels(*labels, outcome)

    async def _shadow(self, address: tuple[str, str], served: Encoded, sequences: Sequences, options: Options) -> None:
        """Have a candidate answer a request, and compare."""
        requests, labels = self._metrics.shadow_requests, _labels(served, address)
        try:
            candidate = self._encoders.find(*address)
            with self._encoders.using(candidate):
                found = await self._answer(candidate, sequences, options)
        except OverloadedError:
            requests.labels(*labels, "skipped").inc()
        except ServiceError as error:
            requests.labels(*labels, "failed").inc()
            logger.debug("candidate %s/%s failed: %s", *address, error)
        except Exception as error:  # a candidate's failure must not affect callers
            requests.labels(*labels, "failed").inc()
            logger.error("candidate %s/%s failed unexpectedly", *address, exc_info=error)
        else:
            requests.labels(*labels, "answered").inc()
            self._compare(labels, served, found)

    async def _answer(self, candidate: Encoder, sequences: Sequences, options: Options) -> Encoded:
        memory = self._memory.open(SHADOW)
        try:
            memory.take(REQUEST_COST * _bytes_of(sequences))
            metrics = self._metrics.of(address_of(candidate))
            call = Call(SHADOW, time.monotonic() + PATIENCE_SECONDS, memory, candidate, metrics)
            wanted = Options(truncate=options.truncate, normalize=options.normalize, priority=Priority.LOW)
            return await super().encode(call, sequences, wanted)
        finally:
            memory.close()

    def _compare(self, labels: tuple[str, str, str], served: Encoded, candidate: Encoded) -> None:
        """Count how the two answers to the same sequences differ."""
        metrics = self._metrics
        failed = {error.index for error in served.errors}
        failed_here = {error.index for error in candidate.errors}
        for outcome, items in (
            ("both failed", failed & failed_here),
            ("only candidate failed", failed_here - failed),
            ("only served failed", failed - failed_here),
        ):
            if items:
                metrics.shadow_sequences.labels(*labels, outcome.replace(" ", "_")).inc(len(items))
        rows = [row for row in range(len(served.lengths)) if row not in failed | failed_here]
        if not rows:
            return
        for role, encoded in (("served", served), ("candidate", candidate)):
            metrics.shadow_compute_seconds.labels(*labels, role).observe(encoded.compute)
        if served.values.shape[1] != candidate.values.shape[1]:
            metrics.shadow_sequences.labels(*labels, "other_width").inc(len(rows))
            return
        metrics.shadow_sequences.labels(*labels, "compared").inc(len(rows))
        metrics.shadow_drift.labels(*labels).observe_all(drift(served.values[rows], candidate.values[rows]))


def drift(served: NDArray[np.float32], candidate: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - cosine of each row of two matrices [n, D]: 0 for the same direction, 1 for unrelated, 2 for opposite ones.

    A vector without length is like another such vector, and unrelated to all others.
    """
    one, other = served.astype(np.float64), candidate.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Where one has no length, rows are equal or unrelated.
        cosine = np.where(lengths > 0, (one * other).sum(axis=1) / lengths, (one == other).all(axis=1))
    return np.asarray(np.clip(1.0 - cosine, 0.0, 2.0), dtype=np.float64)


def _labels(served: Encoded, candidate: tuple[str, str]) -> tuple[str, str, str]:
    """The encoder, the version that was served, and that of the candidate."""
    return *address_of(served.encoder), candidate[1]


def _bytes_of(sequences: Sequences) -> int:
    if isinstance(sequences, RaggedBatch):
        return int(sequences.values.nbytes)
    return sum(map(len, sequences))
