"""What the strings of a request were cut into, as JSON."""

from collections.abc import Callable, Sequence

import numpy as np

from birnn_bundle.ragged import RaggedBatch
from birnn_service.protocols.json_text import write_json


class TokenTexts:
    """The tokens of a batch: `{"id":4,"text":"C"}` for each, with the text that its id stands for.

    Attributes:
        size: Bytes that all of them take.
    """

    def __init__(self, batch: RaggedBatch, decode: Callable[[Sequence[int]], str]) -> None:
        """Look up the text of each id of `batch` once, with its tokenizer's `decode`."""
        self._batch = batch
        counts = np.bincount(batch.ids)
        # A vocabulary may spell what is no Unicode.
        self._texts = {
            number: write_json({"id": number, "text": decode([number]).encode(errors="replace").decode()})
            for number in counts.nonzero()[0].tolist()
        }
        self.size = sum(int(counts[number]) * (len(text) + 1) for number, text in self._texts.items())

    def of(self, row: int) -> bytes:
        """The tokens of one sequence, as a JSON array."""
        return b"[%b]" % b",".join(map(self._texts.__getitem__, self._batch.row(row).tolist()))
