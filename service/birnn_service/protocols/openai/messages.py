"""OpenAI's embeddings over HTTP: what its requests mean and how its replies are written.

https://platform.openai.com/docs/api-reference/embeddings. Extensions: `truncate`; `on_error`, which is `fail` (the
request fails and names the items) or `null` (they have no embedding, and say why); and `tokens`, which adds to each
item the tokens that were encoded.
"""

import binascii
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import ItemError
from birnn_bundle.quoting import shown
from birnn_service.encoded import Notice
from birnn_service.errors import Code, InvalidRequestError, ServiceError
from birnn_service.protocols.http_errors import status_of
from birnn_service.protocols.item_errors import listed
from birnn_service.protocols.json_text import write_json, write_vector
from birnn_service.protocols.openai.token_texts import TokenTexts

# Beside the strings, what a request holds at most: its fields, and some that other servers know.
OTHER_VALUES = 1000
OWNER = "birnn-serving"
FIELDS = ("model", "input", "encoding_format", "dimensions", "on_error", "truncate", "tokens")
# Changes nothing here: names the end user, for abuse reports.
IGNORED = ("user",)
KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
CODES = {
    Code.NOT_FOUND: "model_not_found",
    Code.RESOURCE_EXHAUSTED: "rate_limit_exceeded",
    Code.UNAUTHENTICATED: "invalid_api_key",
}


class FieldError(InvalidRequestError):
    """A field of a request is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A request for embeddings.

    Attributes:
        name, version: Of the encoder; no version for the highest.
        texts: UTF-8.
        base64: Whether vectors are wanted as base64 of little-endian float32.
        dimensions: How many numbers of a vector are wanted; None for all.
        nulls: Whether items that fail are null in the reply and do not fail the request.
        truncate: Cut long strings instead of failing them.
        tokens: Whether the reply says what each string was cut into.
    """

    name: str
    version: str
    texts: Sequence[bytes]
    base64: bool = False
    dimensions: int | None = None
    nulls: bool = False
    truncate: bool = False
    tokens: bool = False


def read_embeddings(value: Any, most: int) -> EmbeddingsRequest:
    """A request from its JSON.

    Args:
        value: What the JSON holds.
        most: Most strings.

    Raises:
        FieldError: A field is missing, unknown, or wrong.
    """
    if not isinstance(value, dict):
        raise InvalidRequestError("the request must be a JSON object with `model` and `input`")
    for field in value:
        if field not in FIELDS and field not in IGNORED:
            close = difflib.get_close_matches(field[:64], FIELDS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise FieldError(shown(field), f"unknown field {shown(field)}; known are {', '.join(FIELDS)}{hint}")
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise FieldError("model", "`model` must be the name of an encoder, or NAME@VERSION")
    name, _, version = model.partition("@")
    dimensions = value.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise FieldError("dimensions", "`dimensions` must be a positive integer")
    return EmbeddingsRequest(
        name,
        version,
        _texts(value.get("input"), most),
        base64=_choice(value, "encoding_format", ("float", "base64")) == "base64",
        dimensions=dimensions,
        nulls=_choice(value, "on_error", ("fail", "null")) == "null",
        truncate=_choice(value, "truncate", (False, True)),
        tokens=_choice(value, "tokens", (False, True)),
    )


def check_dimensions(asked: int | None, dimension: int) -> None:
    """Refuse to cut vectors: an encoder must have been trained for that, and none has.

    Raises:
        FieldError: Others than all `dimension` numbers are asked for.
    """
    if asked is not None and asked != dimension:
        raise FieldError(
            "dimensions",
            f"this encoder's vectors have {dimension} dimensions and were not trained to be cut to {asked}; "
            "leave `dimensions` out",
        )


def _choice(value: dict[str, Any], field: str, choices: tuple[Any, Any]) -> Any:
    """One of two choices, the first where there is none."""
    chosen = value.get(field)
    if chosen is None:
        return choices[0]
    # True is 1, for Python.
    if chosen not in choices or type(chosen) is not type(choices[0]):
        told = " or ".join(write_json(choice).decode() for choice in choices)
        raise FieldError(field, f"`{field}` must be {told}")
    return chosen


def _texts(texts: Any, most: int) -> Sequence[bytes]:
    if isinstance(texts, str):
        return [texts.encode()]
    if not isinstance(texts, list) or not texts:
        raise FieldError("input", "`input` must be a string or a list of at least one string")
    if len(texts) > most:
        raise FieldError(
            "input", f"`input` holds {len(texts)} strings and this server accepts {most} (--max-sequences); split it"
        )
    for index, text in enumerate(texts):
        if isinstance(text, str):
            continue
        if isinstance(text, int | list):
            raise FieldError(
                "input",
                "`input` holds token ids, and those of other tokenizers mean something else here; send strings "
                "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            )
        raise FieldError("input", f"`input` must hold strings; item {index} is {type(text).__name__}")
    return [text.encode() for text in texts]


def write_embeddings(
    model: str,
    vectors: NDArray[np.float32],
    lengths: NDArray[np.int64],
    errors: Sequence[ItemError] = (),
    *,
    base64: bool = False,
    tokens: TokenTexts | None = None,
    notices: Sequence[Notice] = (),
) -> Iterator[bytes]:
    """A reply, in pieces.

    Args:
        model: NAME@VERSION of the encoder.
        vectors: One for each string, float32 [strings, D].
        lengths: Tokens of each.
        errors: Items without a vector.
        base64: Write vectors as base64 of little-endian float32 instead of numbers.
        tokens: Those of the items that did not fail, where they are wanted.
        notices: Items with unknown or cut tokens; told where tokens are.
    """
    failed = {error.index: error for error in errors}
    vectors = np.ascontiguousarray(vectors, dtype="<f4")
    noted = {notice.index: notice for notice in notices}
    row = 0
    yield b'{"object":"list","data":['
    for index, vector in enumerate(vectors):
        yield b'%b{"object":"embedding","index":%d,"embedding":' % (b"," if index else b"", index)
        if error := failed.get(index):
            yield b'null,"error":%b}' % write_json({"code": error.code.name.lower(), "message": error.reason})
        elif base64:
            yield b'"%b"' % binascii.b2a_base64(vector, newline=False)
        else:
            yield write_vector(vector)
        if index in failed:
            continue
        if tokens is not None:
            yield b',"tokens":' + tokens.of(row)
            if notice := noted.get(index):
                told = (notice.unknown_tokens, notice.truncated_tokens)
                yield b',"unknown_tokens":%d,"truncated_tokens":%d' % told
        yield b"}"
        row += 1
    count = int(lengths.sum())
    usage = {"prompt_tokens": count, "total_tokens": count}
    yield b'],"model":%b,"usage":%b}' % (write_json(model), write_json(usage))


def refuse_failed(errors: Sequence[ItemError]) -> None:
    """Fail a request some of whose items failed, and name them.

    Raises:
        FieldError: There are any.
    """
    if not errors:
        return
    raise FieldError(
        "input",
        f"{len(errors)} strings cannot be encoded: {listed(errors, 'input[{}]')}; "
        'for the others send "on_error": "null"',
    )


def write_model(name: str, **more: Any) -> dict[str, Any]:
    """A model, as OpenAI lists them, and what else is to be told of it."""
    # When it was made is not known.
    return {"id": name, "object": "model", "created": 0, "owned_by": OWNER, **more}


def write_models(models: Iterable[dict[str, Any]]) -> bytes:
    """The list of models."""
    return write_json({"object": "list", "data": list(models)})


def write_error(error: ServiceError) -> bytes:
    """An error, in OpenAI's form."""
    number = status_of(error)
    kind = KINDS.get(number, "invalid_request_error" if number < 500 else "server_error")
    field = error.field if isinstance(error, FieldError) else None
    return write_json(
        {
            "error": {
                "message": error.message,
                "type": kind,
                "param": field,
                "code": CODES.get(error.code, error.code.name.lower()),
            }
        }
    )
