"""Text tokenizer: byte-level BPE of the `tokenizers` library, which can write any text and so knows no unknown."""

import json
from collections.abc import Iterable, Sequence
from typing import ClassVar

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from birnn_bundle.errors import BundleError
from birnn_bundle.huggingface import highest_id
from birnn_bundle.tokenizer import SPECIAL_TOKENS, Tokenized, assemble, decode_sequence


class TextTokenizer:
    """Byte-level BPE; lossless, case and white space kept, unless it was trained to read lower case."""

    kind: ClassVar[str] = "text"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    def train(cls, sequences: Iterable[str], vocab_size: int = 8192, lowercase: bool = False) -> "TextTokenizer":
        """Learn merges from `sequences` until there are `vocab_size` ids, the special and the 256 byte ids included.

        With `lowercase`, a word is the same tokens whatever its capitals, and at the beginning of a text as within:
        decoding gives the text in lower case, with a space before it.
        """
        backend = Backend(models.BPE())
        if lowercase:
            backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=lowercase)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(sequences, trainer)
        content = json.loads(backend.to_str())
        # Special tokens stay in the vocabulary, which reserves their ids, but a text that spells one out is only text.
        content["added_tokens"] = []
        return cls(Backend.from_str(json.dumps(content)))

    @property
    def vocab_size(self) -> int:
        """One more than the highest id, the special ones included."""
        return highest_id(self._backend) + 1

    def tokenize(self, sequences: Sequence[bytes | str], max_length: int, truncate: bool = False) -> Tokenized:
        """Tokenize a request; see `birnn_bundle.tokenizer.Tokenizer`."""

        def ids_of(sequence: bytes | str) -> list[int]:
            # Unlike `encode`, this lets other threads run meanwhile, and it keeps no offsets.
            ids: list[int] = self._backend.encode_batch_fast([decode_sequence(sequence)])[0].ids
            return ids

        return assemble(sequences, max_length, truncate, ids_of)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a sequence of ids."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text

    def to_json(self) -> str:
        """Content of tokenizer.json, in the format of the `tokenizers` library."""
        text: str = self._backend.to_str()
        return text + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TextTokenizer":
        """Read what `to_json` wrote.

        Raises:
            BundleError: It is not a tokenizer of the `tokenizers` library with our special ids first, or one that adds
                to or cuts what it reads.
        """
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"tokenizer.json is not a text tokenizer: {error}") from error
        if backend.padding or backend.truncation or backend.post_processor:
            raise BundleError("tokenizer.json pads, cuts or adds tokens, which a text tokenizer does not")
        for number, token in enumerate(SPECIAL_TOKENS):
            if backend.id_to_token(number) != token:
                raise BundleError(f"tokenizer.json has no {token!r} at id {number}")
        return cls(backend)
