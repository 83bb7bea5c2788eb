"""Reading the tokenizer of a checkpoint that was trained elsewhere, so that its ids are the rows of the embedding.

| file | ids |
|---|---|
| tokenizer.json of this project | as there |
| tokenizer.json of Hugging Face's `tokenizers` | as there |
| JSON object {"token": id} or {"id": "token"} | as there |
| JSON list, or a text file with a token per line | by position, the first one 0 or `first_id` |
| text file with "token<TAB>id" per line | as there |
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from birnn_bundle.errors import BundleError
from birnn_bundle.huggingface import HuggingFaceTokenizer
from birnn_bundle.numerals import is_number
from birnn_bundle.text import TextTokenizer
from birnn_bundle.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer
from birnn_bundle.vocabulary import Split, VocabularyTokenizer
from birnn_export.training.checkpoint import CheckpointError

NONE = "none"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# A token, then its id or how often it occurs, but no tab between.
_NUMBERED = re.compile(r"[^\t]+[ ,;]\s*[0-9]+")
# How others call the token that stands for all unknown ones, and those around a sequence; compared in lower case.
UNKNOWN = ("<unk>", "[unk]", "<oov>", "[oov]", "unk", "oov", "<unknown>", "[unknown]", SPECIAL_TOKENS[1])
BEGIN = (
    *("<s>", "<bos>", "<sos>", "<start>", "<begin>", "<go>", "<cls>", "<|startoftext|>", "<|begin_of_text|>"),
    *("[bos]", "[sos]", "[start]", "[cls]", "bos", "sos", "^"),
)
END = (
    *("</s>", "<eos>", "<end>", "<stop>", "<sep>", "<|endoftext|>", "<|end_of_text|>"),
    *("[eos]", "[end]", "[sep]", "eos", "$"),
)
# Around a SMILES; either alone, or with such that no SMILES has, is more likely a character.
ANCHORS, PUNCTUATION = frozenset("^$"), frozenset("&_~")


def read_tokenizer(
    path: Path,
    *,
    split: Split | None = None,
    unknown: str | None = None,
    begin: str | None = None,
    end: str | None = None,
    first_id: int = 0,
) -> Tokenizer:
    """Read a tokenizer or a vocabulary.

    Args:
        path: One of the files above.
        split: How a text is cut into tokens; needed for vocabularies, which do not say it.
        unknown: The token that stands for all others, or "none"; None for the one of a usual name.
        begin: The token to put before each sequence, or "none"; needed where the vocabulary has one that looks so.
        end: Likewise behind each sequence.
        first_id: Id of the first token of a list.

    Raises CheckpointError for a file that cannot be read or is of none of these kinds, and where something is missing.
    """
    content = _content(path)
    if isinstance(content, dict) and (isinstance(content.get("model"), dict) or isinstance(content.get("kind"), str)):
        if (split, unknown, begin, end, first_id) != (None, None, None, None, 0):
            raise CheckpointError(
                f"{path}: is a whole tokenizer; --split, special tokens and --first-id are for vocabularies: leave "
                "them out"
            )
        return _whole(path, content)
    ids = _ids(path, content, first_id)
    if broken := [token for token in ids if not token.isprintable() and _SURROGATE.search(token)]:
        raise CheckpointError(f"{path}: the token {broken[0]!r} is half a character (a lone surrogate); take it out")
    if split is None:
        raise CheckpointError(
            f"{path}: a vocabulary of {len(ids)} tokens does not say how a text is cut into them: add --split "
            f"{' or '.join(get_args(Split))}"
        )
    lowered = {token.lower(): token for token in ids if _may_be_special(token, ids, split)}
    try:
        return VocabularyTokenizer(
            ids,
            split,
            unknown=_special(unknown, [lowered[name] for name in UNKNOWN if name in lowered][:1]),
            begin=_around(path, "begin", begin, [lowered[name] for name in BEGIN if name in lowered]),
            end=_around(path, "end", end, [lowered[name] for name in END if name in lowered]),
        )
    except BundleError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _may_be_special(token: str, ids: Mapping[str, int], split: Split) -> bool:
    """Whether a token of a special one's name may be one, and no character or word."""
    if token in ANCHORS:
        return ids.keys() >= ANCHORS and not ids.keys() & PUNCTUATION
    return split != "words" or not token.isalpha()


def _content(path: Path) -> Any:
    """What a JSON file holds; of any other file its lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as text in UTF-8; save it in that ({error})") from error
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs))
        except (json.JSONDecodeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: is not JSON ({error}); save it with json.dump, or name it .txt if it holds a token per line"
            ) from error
    # Not splitlines, to which a form feed is the end of a line: it is a token where texts were cut into characters.
    lines = text.rstrip("\n").split("\n")
    # Keras' TextVectorization gives padding no name, and the first id.
    if "" in lines[1:-1]:
        number = lines.index("", 1) + 1
        raise CheckpointError(
            f"{path}: line {number} is empty, and tokens are numbered by line: take it out if it has no id, or give "
            "the ids in a JSON object"
        )
    if all(_NUMBERED.fullmatch(line) for line in lines):
        raise CheckpointError(
            f"{path}: each line holds a token and a number, as {lines[0]!r}; if it is the id, put a tab between"
        )
    return lines if any(lines) else []


def _unique(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(
            f"{path}: {twice!r} stands there more than once, and a token has one id; take out the others"
        )
    return content


def _whole(path: Path, content: Mapping[str, Any]) -> Tokenizer:
    text = json.dumps(content)
    try:
        if not isinstance(content.get("model"), dict):
            return load_tokenizer(str(content["kind"]), text)
        try:
            # The text tokenizer of this project is one of the library, with its own special tokens first.
            return TextTokenizer.from_json(text)
        except BundleError:
            return HuggingFaceTokenizer.from_json(text)
    except BundleError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _ids(path: Path, content: Any, first_id: int) -> dict[str, int]:
    if isinstance(content, list):
        # With another first id, that of the first token that has a name.
        content = content[1:] if first_id and content[:1] == [""] else content
        if content and all(isinstance(line, str) and "\t" in line for line in content):
            lines = [line.rsplit("\t", 1) for line in content]
            pairs = [(token, int(number) if is_number(number) else number) for token, number in lines]
            return _table(path, _unique(path, pairs))
        if not content or not all(isinstance(token, str) for token in content) or len(set(content)) != len(content):
            raise CheckpointError(f"{path}: a vocabulary is a list of tokens, each of them once; take out the others")
        return {token: number for number, token in enumerate(content, first_id)}
    if first_id:
        raise CheckpointError(f"{path}: gives each token its id; --first-id is for lists: leave it out")
    return _table(path, content)


def _table(path: Path, content: Any) -> dict[str, int]:
    if isinstance(content, dict) and content:
        if all(type(number) is int for number in content.values()):
            return content
        if all(isinstance(token, str) and is_number(key) for key, token in content.items()):
            swapped = {token: int(key) for key, token in content.items()}
            if len(swapped) == len(content):
                return swapped
    raise CheckpointError(
        f"{path}: neither a tokenizer, nor a list of tokens, nor a table of tokens and ids, one id a token; "
        "docs/checkpoints.md shows them"
    )


def _special(given: str | None, usual: list[str]) -> str | None:
    if given is not None:
        return None if given == NONE else given
    return usual[0] if usual else None


def _around(path: Path, what: str, given: str | None, usual: list[str]) -> str | None:
    """The token to put before or behind each sequence; whether training did so does not show in a vocabulary."""
    if given is None and usual:
        raise CheckpointError(
            f"{path}: holds {usual[0]!r}; if training put it at the {what} of each sequence, add --{what}-token "
            f"{usual[0]!r}, else --{what}-token none"
        )
    return _special(given, [])
