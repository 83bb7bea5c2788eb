"""Any tokenizer of the `tokenizers` library with ids of its own, for encoders that were trained elsewhere."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import Tokenizer as Backend

from birnn_bundle.errors import BundleError, ItemErrorCode
from birnn_bundle.quoting import shown
from birnn_bundle.tokenizer import SequenceError, Tokenized, assemble, decode_sequence


class HuggingFaceTokenizer:
    """Does what the library does with the same file, special tokens around a sequence included.

    Padding and truncation of the file are switched off: lengths are exact here, and what is cut is reported. What is
    cut is cut before the special tokens at the end.
    """

    kind: ClassVar[str] = "huggingface"

    def __init__(self, backend: Backend) -> None:
        """Use `backend`.

        Raises:
            BundleError: It would drop what it does not know without a word.
        """
        content = json.loads(backend.to_str())
        # Merges left out at random belong to training.
        if content["model"].get("dropout"):
            content["model"]["dropout"] = None
        self._backend: Backend = Backend.from_str(json.dumps(content))
        truncation = self._backend.truncation
        self.cuts_at: int | None = truncation["max_length"] if truncation else None
        """Where the file itself cuts sequences."""
        self._backend.no_padding()
        self._backend.no_truncation()
        self._unknown = _unknown_id(self._backend, content["model"])
        if _drops_silently(content):
            raise BundleError(
                "tokenizer.json drops characters that are not in its vocabulary without a word: a BPE model that is "
                "not byte-level needs an unk_token"
            )
        empty = self._backend.encode("")
        inner = [number for number, special in enumerate(self._backend.encode("a").special_tokens_mask) if not special]
        # Special tokens before a text stay where they are, those behind it move with its end.
        head = inner[0] if inner else len(empty.ids)
        self._specials = len(empty.ids)
        self._tail: list[int] = empty.ids[head:]

    @property
    def vocab_size(self) -> int:
        """One more than the highest id, those of the tokens around every sequence included."""
        return highest_id(self._backend) + 1

    def tokenize(self, sequences: Sequence[bytes | str], max_length: int, truncate: bool = False) -> Tokenized:
        """Tokenize a request; see `birnn_bundle.tokenizer.Tokenizer`."""
        return assemble(sequences, max_length, truncate, self._read, unknown_id=self._unknown, tail=self._tail)

    def _read(self, sequence: bytes | str) -> list[int]:
        try:
            # Unlike `encode`, this lets other threads run meanwhile, and it keeps no offsets.
            ids: list[int] = self._backend.encode_batch_fast([decode_sequence(sequence)])[0].ids
        except SequenceError:
            raise
        except Exception as error:  # the library raises plain Exception, as for a word where it has no unknown token
            raise SequenceError(
                ItemErrorCode.UNKNOWN_CHARACTERS, f"the tokenizer cannot read it: {shown(str(error), 200)}"
            ) from error
        if len(ids) <= self._specials:
            raise SequenceError(ItemErrorCode.EMPTY, "the tokenizer finds no token in this sequence; leave it out")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a sequence of ids, as far as the tokenizer can give it back."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text

    def to_json(self) -> str:
        """Content of tokenizer.json, in the format of the `tokenizers` library."""
        text: str = self._backend.to_str()
        return text + "\n"

    @classmethod
    def from_json(cls, text: str) -> "HuggingFaceTokenizer":
        """Read a file of the `tokenizers` library.

        Raises:
            BundleError: It is none, or one that drops what it does not know.
        """
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"tokenizer.json is not a tokenizer of the tokenizers library: {error}") from error
        return cls(backend)


def highest_id(backend: Backend) -> int:
    """The highest id that a tokenizer can give.

    A file may put ids around a sequence that are not in its vocabulary.
    """
    return max([*backend.get_vocab(with_added_tokens=True).values(), *backend.encode("").ids], default=-1)


def _unknown_id(backend: Backend, model: Mapping[str, Any]) -> int | None:
    if model.get("type") == "Unigram":
        number: int | None = model.get("unk_id")
        return number
    token = model.get("unk_token")
    found: int | None = None if token is None else backend.token_to_id(token)
    return found


def _drops_silently(content: Mapping[str, Any]) -> bool:
    model = content["model"]
    if model.get("type") != "BPE" or model.get("unk_token") is not None or model.get("byte_fallback"):
        return False
    steps = json.dumps([content.get("pre_tokenizer"), content.get("normalizer")])
    return '"ByteLevel"' not in steps
