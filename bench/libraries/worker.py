"""A process that runs batches with a library: `python -m bench.libraries.worker LIBRARY PRECISION FOLDER`.

It reads orders from its input, one JSON object a line, and answers each with one:

- `{"batches": FILE, "equal": bool}`: batches to run, as `write_batches` writes them; answers their `number`.
- `{"measure": NUMBER, "seconds": s}`: runs batch after batch, going on where it ended before; answers `tokens` and
  `seconds`.
- `{"encode": NUMBER, "batch": k}`: answers the `vectors` of a batch, as base64 of float32.

Whatever fails is answered as `{"error": TEXT}`. The first line says which `version` the library has.
"""

import base64
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.libraries.runner import MakeRunner, Runner
from birnn_bundle.ragged import RaggedBatch

RUNNERS = {
    "onednn": "bench.libraries.onednn_runner:OneDnnRunner",
    "openvino": "bench.libraries.openvino_runner:OpenVinoRunner",
    "torch": "bench.libraries.torch_runner:TorchRunner",
}


class Batches:
    """Batches ready to run, and which comes next."""

    def __init__(self, runner: Runner, batches: Sequence[RaggedBatch], equal: bool) -> None:
        self._runs = [runner.prepare(batch, equal) for batch in batches]
        self._tokens = [batch.tokens for batch in batches]
        self._next = 0
        # Whatever a library makes for a shape that it has not seen is made before anything is measured.
        for run in self._runs:
            run()

    def measure(self, seconds: float) -> dict[str, float]:
        """Run for about `seconds`."""
        tokens, start = 0, time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            self._runs[self._next]()
            tokens += self._tokens[self._next]
            self._next = (self._next + 1) % len(self._runs)
        return {"tokens": tokens, "seconds": now - start}

    def encode(self, batch: int) -> dict[str, str]:
        """The vectors of a batch."""
        return {"vectors": base64.b64encode(self._runs[batch]().astype("<f4").tobytes()).decode()}


def write_batches(file: Path, batches: Sequence[RaggedBatch]) -> None:
    """Write batches of ids."""
    whole = RaggedBatch.concatenate(batches)
    np.savez(file, ids=whole.ids, offsets=whole.offsets, sizes=np.array([len(batch) for batch in batches]))


def read_batches(file: Path) -> list[RaggedBatch]:
    """Read what `write_batches` wrote."""
    with np.load(file) as stored:
        whole, sizes = RaggedBatch(stored["ids"], stored["offsets"]), stored["sizes"]
    ends = np.cumsum(sizes).tolist()
    return [whole.between(end - size, end) for end, size in zip(ends, sizes.tolist(), strict=True)]


def answer(order: dict[str, Any], runner: Runner, kept: list[Batches]) -> dict[str, Any]:
    """Carry out an order."""
    if "batches" in order:
        kept.append(Batches(runner, read_batches(Path(order["batches"])), order["equal"]))
        return {"number": len(kept) - 1}
    if "measure" in order:
        batches: Batches = kept[order["measure"]]
        return batches.measure(order["seconds"])
    batches = kept[order["encode"]]
    return batches.encode(order["batch"])


def main() -> None:
    """Serve the orders of standard input."""
    # Libraries may write to standard output, which carries the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(reply: dict[str, Any]) -> None:
        print(json.dumps(reply), file=answers, flush=True)

    try:
        module, _, name = RUNNERS[sys.argv[1]].partition(":")
        make: MakeRunner = getattr(importlib.import_module(module), name)
        runner = make(Path(sys.argv[3]), sys.argv[2])  # type: ignore[arg-type]
    except Exception as error:
        say({"error": str(error) or repr(error)})
        return
    say({"version": runner.version})
    kept: list[Batches] = []
    for line in sys.stdin:
        try:
            say(answer(json.loads(line), runner, kept))
        except Exception as error:
            say({"error": str(error) or repr(error)})


if __name__ == "__main__":
    main()
