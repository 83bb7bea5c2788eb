"""Work on many sequences in several processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Part = TypeVar("Part")

_CHUNK = 500


def map_chunks(
    function: Callable[[Sequence[str]], Part], sequences: Sequence[str], workers: int | None, description: str
) -> list[Part]:
    """What `function` makes of each chunk of `sequences`, in order; by `workers` processes (default: one a core).

    With several workers, `function` must be importable (a module's function or a `partial` of one).
    """
    chunks = [sequences[start : start + _CHUNK] for start in range(0, len(sequences), _CHUNK)]
    parts: list[Part] = []
    with tqdm(total=len(sequences), desc=description, unit="molecule", mininterval=1.0) as bar:
        for chunk, part in zip(chunks, _each(function, chunks, workers or os.cpu_count() or 1), strict=True):
            parts.append(part)
            bar.update(len(chunk))
    return parts


def _each(function: Callable[[Sequence[str]], Part], chunks: list[Sequence[str]], workers: int) -> Iterator[Part]:
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from map(function, chunks)
        return
    # Spawned, not forked: the parent may hold torch's threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, chunks)
