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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from bundle.errors import BundleError
from bundle.huggingface import HuggingFaceTokenizer
from bundle.text import TextTokenizer
from bundle.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer
from bundle.vocabulary import Split, VocabularyTokenizer
from export.training.checkpoint import CheckpointError

NONE = "none"
# How others call the token that stands for all unknown ones, and those around a sequence; compared in lower case.
UNKNOWN = ("<unk>", "[unk]", "<oov>", "[oov]", "unk", "oov", "<unknown>", "[unknown]", SPECIAL_TOKENS[1])
BEGIN = ("<s>", "<bos>", "<sos>", "<start>", "<begin>", "<go>", "[bos]", "[sos]", "[start]", "[cls]", "<cls>")
END = ("</s>", "<eos>", "<end>", "<stop>", "[eos]", "[end]", "[sep]", "<sep>")


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
    if isinstance(content, dict) and ("model" in content or isinstance(content.get("kind"), str)):
        if (split, unknown, begin, end, first_id) != (None, None, None, None, 0):
            raise CheckpointError(
                f"{path}: is a whole tokenizer; --split, special tokens and --first-id are for vocabularies"
            )
        return _whole(path, content)
    ids = _ids(path, content, first_id)
    if split is None:
        raise CheckpointError(
            f"{path}: a vocabulary of {len(ids)} tokens does not say how a text is cut into them: add --split "
            f"{' or '.join(get_args(Split))}"
        )
    lowered = {token.lower(): token for token in ids}
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


def _content(path: Path) -> Any:
    """What a JSON file holds; of any other file its lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as text: {error}") from error
    if path.suffix.lower() != ".json":
        return [line for line in text.splitlines() if line]
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: is not JSON ({error})") from error


def _whole(path: Path, content: Mapping[str, Any]) -> Tokenizer:
    text = json.dumps(content)
    try:
        if "kind" in content and "model" not in content:
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
        if content and all(isinstance(line, str) and "\t" in line for line in content):
            pairs = [line.rsplit("\t", 1) for line in content]
            return _table(path, {token: int(number) if number.isdecimal() else number for token, number in pairs})
        if not content or not all(isinstance(token, str) for token in content) or len(set(content)) != len(content):
            raise CheckpointError(f"{path}: a vocabulary is a list of tokens, each of them once")
        return {token: number for number, token in enumerate(content, first_id)}
    if first_id:
        raise CheckpointError(f"{path}: gives each token its id; --first-id is for lists")
    return _table(path, content)


def _table(path: Path, content: Any) -> dict[str, int]:
    if isinstance(content, dict) and content:
        if all(type(number) is int for number in content.values()):
            return content
        if all(isinstance(token, str) and key.isdecimal() for key, token in content.items()):
            swapped = {token: int(key) for key, token in content.items()}
            if len(swapped) == len(content):
                return swapped
    raise CheckpointError(
        f"{path}: neither a tokenizer, nor a list of tokens, nor a table of tokens and ids, one id a token"
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
