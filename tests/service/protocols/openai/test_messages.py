import base64
import json
from typing import Any

import numpy as np
import pytest

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.smiles import SmilesTokenizer
from birnn_service.encoded import Notice
from birnn_service.errors import (
    BrokenEncoderError,
    DeadlineError,
    EngineError,
    InvalidRequestError,
    OverloadedError,
    Reason,
    ServiceError,
    UnavailableError,
    UnknownEncoderError,
)
from birnn_service.protocols.http_errors import headers_of, status_of
from birnn_service.protocols.openai.messages import (
    EmbeddingsRequest,
    FieldError,
    check_dimensions,
    read_embeddings,
    refuse_failed,
    write_embeddings,
    write_error,
    write_model,
    write_models,
)
from birnn_service.protocols.openai.token_texts import TokenTexts

FAILED = [ItemError(index, ItemErrorCode.EMPTY, "the sequence is empty") for index in range(1, 6)]


def read(**fields: Any) -> EmbeddingsRequest:
    return read_embeddings({"model": "smiles", "input": "CCO", **fields}, 3)


def test_a_string_and_a_list_are_read() -> None:
    assert read() == EmbeddingsRequest("smiles", "", [b"CCO"])
    assert read(input=["C", "é"], model="smiles@2").texts == [b"C", "é".encode()]
    assert read(model="smiles@2").version == "2"
    assert len(read(input=["", ""]).texts) == 2


def test_options_are_read() -> None:
    request = read(encoding_format="base64", dimensions=256, user="me", on_error="null", truncate=True, tokens=True)
    assert request == EmbeddingsRequest("smiles", "", [b"CCO"], True, 256, True, True, True)
    assert read(encoding_format=None, dimensions=None) == read()


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"model": None}, "model", "NAME@VERSION"),
        ({"model": 1}, "model", "NAME@VERSION"),
        ({"input": None}, "input", "a string or a list"),
        ({"input": []}, "input", "at least one"),
        ({"input": {}}, "input", "a string or a list"),
        ({"input": [1, 2]}, "input", "token ids"),
        ({"input": [[1, 2]]}, "input", "check_embedding_ctx_length"),
        ({"input": ["a", None]}, "input", "item 1 is NoneType"),
        ({"input": ["a", 1.5]}, "input", "item 1 is float"),
        ({"input": ["a"] * 4}, "input", "accepts 3"),
        ({"encoding_format": "hex"}, "encoding_format", '"float" or "base64"'),
        ({"encoding_format": ["float"]}, "encoding_format", '"float" or "base64"'),
        ({"dimensions": 0}, "dimensions", "positive"),
        ({"dimensions": True}, "dimensions", "positive"),
        ({"dimensions": 1.0}, "dimensions", "positive"),
        ({"truncate": 1}, "truncate", "false or true"),
        ({"truncate": "yes"}, "truncate", "false or true"),
        ({"tokens": "ids"}, "tokens", "false or true"),
        ({"on_error": "skip"}, "on_error", '"fail" or "null"'),
        ({"encoding_fromat": "float"}, "'encoding_fromat'", "did you mean 'encoding_format'"),
        ({"x" * 1000: 1}, None, "unknown field"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], field: str | None, message: str) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        read(**fields)
    assert field is None or caught.value.field == field
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_request_is_an_object(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="JSON object"):
        read_embeddings(value, 3)


def test_vectors_are_not_cut() -> None:
    check_dimensions(None, 256)
    check_dimensions(256, 256)
    with pytest.raises(FieldError, match="not trained to be cut to 128"):
        check_dimensions(128, 256)


@pytest.mark.parametrize("as_base64", [False, True])
def test_a_reply_holds_the_vectors(as_base64: bool) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    reply = json.loads(b"".join(write_embeddings("a@1", vectors, np.array([1, 2, 3]), base64=as_base64)))
    assert (reply["object"], reply["model"]) == ("list", "a@1")
    assert reply["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert [item["index"] for item in reply["data"]] == [0, 1, 2]
    for item, vector in zip(reply["data"], vectors, strict=True):
        held = item["embedding"]
        found = np.frombuffer(base64.b64decode(held), "<f4") if as_base64 else np.array(held, np.float32)
        assert np.array_equal(found, vector)


def test_items_that_failed_are_null_and_say_why() -> None:
    vectors = np.array([[1.0], [np.nan]], dtype=np.float32)
    reply = json.loads(b"".join(write_embeddings("a@1", vectors, np.array([1, 0]), FAILED[:1])))
    assert [item["embedding"] for item in reply["data"]] == [[1.0], None]
    assert reply["data"][1]["error"] == {"code": "empty", "message": "the sequence is empty"}


def test_a_reply_says_what_each_string_was_cut_into() -> None:
    tokenizer = SmilesTokenizer(["C", "O"])
    tokenized = tokenizer.tokenize(["CCO", "", "CN"], 10)
    tokens = TokenTexts(tokenized.batch, tokenizer.decode)
    vectors, notices = np.ones((3, 1), np.float32), [Notice(2, 1, 0)]
    reply = b"".join(write_embeddings("a@1", vectors, np.array([3, 0, 2]), FAILED[:1], tokens=tokens, notices=notices))
    first, failed, last = json.loads(reply)["data"]
    assert first["tokens"] == [{"id": 3, "text": "C"}, {"id": 3, "text": "C"}, {"id": 4, "text": "O"}]
    assert "tokens" not in failed
    assert "unknown_tokens" not in first
    assert (last["tokens"][1]["id"], last["unknown_tokens"], last["truncated_tokens"]) == (1, 1, 0)


def test_the_size_of_texts_is_known_before_they_are_written() -> None:
    batch = RaggedBatch.from_lists([[0, 1, 1], [2]])
    texts = TokenTexts(batch, lambda ids: ["a", '"\ud800', "é" * 100][ids[0]])
    written = [texts.of(row) for row in range(2)]
    assert json.loads(written[0])[1] == {"id": 1, "text": '"?'}
    # Each array has a bracket more than it has commas.
    assert texts.size == sum(map(len, written)) - len(written)


def test_items_that_failed_are_named() -> None:
    refuse_failed([])
    with pytest.raises(FieldError, match=r"5 strings .*input\[1\]: the sequence is empty.*and 2 more.*on_error"):
        refuse_failed(FAILED)


def test_models_are_listed() -> None:
    reply = json.loads(write_models([write_model("a@1", dimension=8)]))
    assert reply["object"] == "list"
    assert reply["data"][0]["id"] == "a@1"
    assert reply["data"][0]["dimension"] == 8


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "headers"),
    [
        (FieldError("input", "bad"), 400, "invalid_request_error", "invalid_argument", {}),
        (UnknownEncoderError("no"), 404, "not_found_error", "model_not_found", {}),
        (
            OverloadedError("full", 0.25, Reason.QUEUE),
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
            {"retry-after": "1", "retry-after-ms": "250"},
        ),
        (UnavailableError("draining"), 503, "server_error", "unavailable", {}),
        (BrokenEncoderError("broken"), 503, "server_error", "unavailable", {"x-should-retry": "false"}),
        (DeadlineError("late"), 504, "server_error", "deadline_exceeded", {}),
        (EngineError("failed"), 500, "server_error", "internal", {}),
    ],
)
def test_errors_have_the_form_that_clients_know(
    error: ServiceError, status: int, kind: str, code: str, headers: dict[str, str]
) -> None:
    assert status_of(error) == status
    assert dict(headers_of(error)) == headers
    told = json.loads(write_error(error))["error"]
    assert (told["type"], told["code"], told["message"]) == (kind, code, str(error))
    assert told["param"] == ("input" if isinstance(error, FieldError) else None)
