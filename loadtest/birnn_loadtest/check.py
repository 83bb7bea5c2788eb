"""Whether replies given under load are right: some are compared with the answers to the same sequences alone.

A server that mixes up the rows of a batch, or computes them wrongly when it is full, is fast for nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from birnn_loadtest.schedule import Part
from birnn_loadtest.targets.target import CallError, Reply, Target

# A call carries up to thousands of sequences; asking each again, one at a time, would take as long as the test.
MOST_ROWS = 8
MOST_MESSAGES = 5


@dataclass(slots=True)
class Check:
    """What came of the comparison.

    Attributes:
        compared: Vectors compared.
        equal: How many of them had the same bits.
        wrong: How many differed by more than the tolerance, or could not be compared.
        largest: The largest difference, as a share of the largest number of the vector that was asked for alone.
        messages: What is wrong, for the first few.
    """

    compared: int = 0
    equal: int = 0
    wrong: int = 0
    largest: float = 0.0
    messages: list[str] = field(default_factory=list)

    def add(self, other: "Check") -> None:
        """Count what came of another."""
        self.compared += other.compared
        self.equal += other.equal
        self.wrong += other.wrong
        self.largest = max(self.largest, other.largest)
        self.messages = (self.messages + other.messages)[:MOST_MESSAGES]

    def compare(self, what: str, found: NDArray[np.float32], alone: NDArray[np.float32], tolerance: float) -> None:
        """Compare two vectors [dimension]; NaN, of a sequence that cannot be encoded, equals NaN."""
        self.compared += 1
        if found.shape != alone.shape:
            self._blame(f"{what}: {found.size} numbers under load, {alone.size} alone")
        elif found.tobytes() == alone.tobytes() or bool(np.isnan(found).all() and np.isnan(alone).all()):
            self.equal += 1
        elif not (np.isfinite(found).all() and np.isfinite(alone).all()):
            self._blame(f"{what}: numbers that are not finite")
        else:
            scale = float(np.abs(alone).max()) or 1.0
            difference = float(np.abs(found.astype(np.float64) - alone).max()) / scale
            self.largest = max(self.largest, difference)
            if difference > tolerance:
                self._blame(f"{what}: differs by {difference:.3g} of its largest number")

    def fail(self, what: str) -> None:
        """Count a vector that could not be compared."""
        self.compared += 1
        self._blame(what)

    def _blame(self, message: str) -> None:
        self.wrong += 1
        if len(self.messages) < MOST_MESSAGES:
            self.messages.append(message)


class Sample:
    """Some replies of a test, each as likely as any other to be kept (reservoir sampling).

    Args:
        size: How many are kept at most; 0 for none.
        seed: Decides which.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = random.Random(seed)
        self._offered = 0
        self._kept: list[tuple[Part, list[bytes], Reply]] = []

    def offer(self, part: Part, sequences: Sequence[bytes], reply: Reply) -> None:
        """Keep a reply, or not."""
        self._offered += 1
        if len(self._kept) < self._size:
            self._kept.append((part, list(sequences), reply))
        elif self._size and (place := self._random.randrange(self._offered)) < self._size:
            self._kept[place] = (part, list(sequences), reply)

    async def check(self, target: Target, timeout: float, tolerance: float) -> Check:  # noqa: ASYNC109
        """Ask for the sequences that were kept one at a time, and compare.

        Args:
            target: The server that answered.
            timeout: Deadline of each call, in seconds.
            tolerance: Largest difference allowed, as a share of the largest number of a vector; 0 for the same bits.
        """
        check = Check()
        for part, sequences, reply in self._kept:
            what = f"{part.encoder}, a call of {len(sequences)}"
            try:
                vectors = reply.vectors()
            except ValueError as error:
                check.fail(f"{what}: {error}")
                continue
            if len(vectors) != len(sequences):
                check.fail(f"{what}: the reply holds {len(vectors)} vectors")
                continue
            rows = sorted(self._random.sample(range(len(sequences)), min(MOST_ROWS, len(sequences))))
            for row in rows:
                await self._compare(
                    check, f"{what}, row {row}", target, part, sequences[row], vectors[row], timeout, tolerance
                )
        return check

    @staticmethod
    async def _compare(
        check: Check,
        what: str,
        target: Target,
        part: Part,
        sequence: bytes,
        found: NDArray[np.float32],
        timeout: float,  # noqa: ASYNC109
        tolerance: float,
    ) -> None:
        try:
            alone = (await target.call(part, [sequence], timeout)).vectors()
        except (CallError, ValueError) as error:
            check.fail(f"{what}: alone it has no answer: {error}")
            return
        if len(alone) != 1:
            check.fail(f"{what}: alone it has {len(alone)} vectors")
            return
        check.compare(what, found, alone[0], tolerance)
