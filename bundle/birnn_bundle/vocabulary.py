"""A vocabulary that keeps given ids, for encoders trained elsewhere: their embedding rows are already numbered."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from birnn_bundle.errors import BundleError, ItemErrorCode
from birnn_bundle.quoting import shown
from birnn_bundle.smiles import split as split_smiles
from birnn_bundle.tokenizer import SequenceError, Tokenized, assemble, decode_sequence

Split = Literal["smiles", "characters", "words", "selfies"]

_SELFIES = re.compile(r"\[[^\[\]]+\]|\.")


def _split_selfies(text: str) -> list[str]:
    """Symbols of a SELFIES string. Raises SequenceError for characters outside brackets."""
    symbols: list[str] = _SELFIES.findall(text)
    if sum(map(len, symbols)) != len(text):
        raise SequenceError(ItemErrorCode.UNKNOWN_CHARACTERS, "not SELFIES: symbols in brackets and dots, nothing else")
    return symbols


# How a text is split into tokens, and what joins them again.
SPLITS: dict[Split, tuple[Callable[[str], list[str]], str]] = {
    "smiles": (split_smiles, ""),
    "characters": (list, ""),
    "words": (str.split, " "),
    "selfies": (_split_selfies, ""),
}


class VocabularyTokenizer:
    """Looks each token up in a table of ids, and adds begin and end tokens if the encoder was trained with them.

    Tokens outside the table become the unknown one and are counted; without one, the sequence fails and names them.
    """

    kind: ClassVar[str] = "vocabulary"

    def __init__(
        self,
        ids: Mapping[str, int],
        split: Split,
        *,
        unknown: str | None = None,
        begin: str | None = None,
        end: str | None = None,
    ) -> None:
        """Use a table of tokens.

        Args:
            ids: Id of each token, at least 0; they need not be consecutive.
            split: How to split a text: SMILES tokens, single characters, words between white space, or SELFIES symbols.
            unknown: The token for everything that is not in the table; None if there is none.
            begin: The token to put before each sequence; None for none.
            end: The token to put after each sequence; None for none.

        Raises:
            BundleError: The table is empty, an id is negative or given twice, or a special token is not in the table.
        """
        if split not in SPLITS:
            raise BundleError(f"a vocabulary can be split into {', '.join(get_args(Split))}, not {shown(str(split))}")
        if not ids or min(ids.values()) < 0:
            raise BundleError("a vocabulary needs at least one token, and ids of at least 0")
        self._tokens = {number: token for token, number in ids.items()}
        if len(self._tokens) != len(ids):
            raise BundleError("an id stands for more than one token of the vocabulary")
        for what, token in (("unknown", unknown), ("begin", begin), ("end", end)):
            if token is not None and token not in ids:
                raise BundleError(f"the {what} token {shown(token)} is not in the vocabulary")
        self._ids = dict(ids)
        self._names: dict[str, Any] = {"split": split, "unknown": unknown, "begin": begin, "end": end}
        self._split, self._joint = SPLITS[split]
        self._unknown = None if unknown is None else ids[unknown]
        self._head = [] if begin is None else [ids[begin]]
        self._tail = [] if end is None else [ids[end]]
        # A text that happens to contain the spelling of a special token does not mean that token.
        special = {token for token in (unknown, begin, end) if token is not None}
        self._words = {token: number for token, number in ids.items() if token not in special}

    @property
    def unreachable(self) -> list[str]:
        """Tokens, special ones left out, that splitting never yields, such as "Cl" when split into characters."""
        return [token for token in self._words if not self._makes(token)]

    def _makes(self, token: str) -> bool:
        try:
            return self._split(token) == [token]
        except SequenceError:
            return False

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self._tokens) + 1

    def tokenize(self, sequences: Sequence[bytes | str], max_length: int, truncate: bool = False) -> Tokenized:
        """Tokenize a request; see `birnn_bundle.tokenizer.Tokenizer`. Truncation keeps the end token."""
        return assemble(sequences, max_length, truncate, self._read, unknown_id=self._unknown, tail=self._tail)

    def _read(self, sequence: bytes | str) -> list[int]:
        tokens = self._split(decode_sequence(sequence))
        if self._unknown is None and (missing := [token for token in tokens if token not in self._words]):
            raise SequenceError(
                ItemErrorCode.UNKNOWN_CHARACTERS,
                f"token {shown(missing[0])} is not in the vocabulary, and this encoder has none for unknown ones",
            )
        if not tokens:
            raise SequenceError(ItemErrorCode.EMPTY, "the sequence holds no token; leave it out")
        return [*self._head, *(self._words.get(token, self._unknown or 0) for token in tokens), *self._tail]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a sequence of ids, special tokens included."""
        return self._joint.join(self._tokens.get(number, "?") for number in ids)

    def to_json(self) -> str:
        """Content of tokenizer.json."""
        content = {"kind": self.kind, **self._names, "ids": self._ids}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "VocabularyTokenizer":
        """Read what `to_json` wrote.

        Raises:
            BundleError: It is not such a vocabulary.
        """
        try:
            content = json.loads(text)
            ids = content["ids"]
            names = {name: content[name] for name in ("unknown", "begin", "end")}
            if content["kind"] != cls.kind or not all(type(number) is int for number in ids.values()):
                raise ValueError("not a table of tokens and ids")
            if not all(name is None or isinstance(name, str) for name in names.values()):
                raise ValueError("a special token is no text")
            return cls(ids, content["split"], **names)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"tokenizer.json is not a vocabulary: {error}") from error
