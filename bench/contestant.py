"""Who takes part in a comparison of engines, and how right their vectors are."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.libraries.library import Worker
from birnn_bundle.ragged import RaggedBatch

# Batches of each contestant whose vectors are compared with those of float64.
COMPARED = 8
# Largest difference of a number from float64 that rounding explains, in float32 and in fewer bits; beyond it, something
# else was computed.
ROUNDING_FLOAT32, ROUNDING_REDUCED = 1e-5, 5e-2
# Sequences that a library is given at most: it runs each of its batches once beforehand.
GIVEN = 512


@dataclass(slots=True)
class Contestant:
    """Something that runs batches.

    Attributes:
        name: What reports call it.
        run: Runs the batch of a number.
        batches: What is run.
        pads: Whether rows of several lengths are padded to the longest one, and the padding computed.
        rounding: Largest error that rounding explains.
        rates: Tokens per second of each round so far.
    """

    name: str
    run: Callable[[int], object]
    batches: Sequence[RaggedBatch]
    pads: bool
    rounding: float = ROUNDING_FLOAT32
    rates: list[float] = field(default_factory=list)
    position: int = 0

    def measure(self, seconds: float) -> None:
        """Run batch after batch for about `seconds`, going on where the last round ended."""
        tokens, start = 0, time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            number = self.position % len(self.batches)
            self.run(number)
            tokens += self.batches[number].tokens
            self.position += 1
        self.rates.append(tokens / (now - start))

    def encode(self, number: int) -> NDArray[np.float32]:
        """The vectors [n, D] of the batch of a number."""
        return np.asarray(self.run(number), dtype=np.float32).reshape(len(self.batches[number]), -1)

    @property
    def tokens_per_second(self) -> float:
        """Median over rounds."""
        return median(self.rates)

    @property
    def mean_length(self) -> float:
        """Tokens of a sequence."""
        return sum(batch.tokens for batch in self.batches) / sum(map(len, self.batches))

    @property
    def padding(self) -> float:
        """Share of the computed cells that are padding."""
        if not self.pads:
            return 0.0
        cells = sum(len(batch) * int(batch.lengths.max()) for batch in self.batches)
        return 1.0 - sum(batch.tokens for batch in self.batches) / cells


@dataclass(slots=True)
class WorkerContestant(Contestant):
    """A library in a process of its own, which keeps the time itself."""

    worker: Worker | None = None
    number: int = 0

    @classmethod
    def of(
        cls, name: str, worker: Worker, batches: Sequence[RaggedBatch], pads: bool, *, equal: bool = False
    ) -> "WorkerContestant":
        """Hand `GIVEN` sequences over to a worker; `equal` has it take the rows of each batch to have one length."""
        batches = batches[: max(COMPARED, GIVEN // len(batches[0]))]
        number = worker.prepare(batches, equal)
        rounding = ROUNDING_FLOAT32 if worker.library.precision == "float32" else ROUNDING_REDUCED
        return cls(
            name,
            lambda batch: worker.encode(number, batch, len(batches[batch])),
            batches,
            pads,
            rounding,
            worker=worker,
            number=number,
        )

    def measure(self, seconds: float) -> None:
        """Let the worker run batch after batch for about `seconds`."""
        assert self.worker is not None
        self.rates.append(self.worker.measure(self.number, seconds))


def compare_with_float64(contestants: Sequence[Contestant], encoder: torch.nn.Module) -> list[dict[str, Any]]:
    """Of each contestant the padding it computes, and how its vectors differ from those of the encoder in float64.

    `error` is the largest difference of a number, `cosine` the least cosine of a vector to the right one; `right` says
    whether that is what rounding does.
    """
    exact = copy.deepcopy(encoder).double()
    found = []
    for contestant in contestants:
        error, cosine = 0.0, 1.0
        for number, batch in enumerate(islice(contestant.batches, COMPARED)):
            ids = torch.from_numpy(batch.padded().T.astype(np.int64))
            with torch.inference_mode():
                expected = exact(ids, torch.from_numpy(batch.lengths)).numpy()
            vectors = contestant.encode(number).astype(np.float64)
            error = max(error, float(np.abs(vectors - expected).max()))
            norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
            cosine = min(cosine, float(((vectors * expected).sum(axis=1) / norms).min()))
        facts = {"contestant": contestant.name, "padding": contestant.padding, "error": error, "cosine": cosine}
        found.append(facts | {"right": error <= contestant.rounding})
    return found
