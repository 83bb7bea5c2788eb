"""What every method of both clients takes, and what becomes of it."""

import inspect
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import birnn
from birnn.base_client import BaseClient
from birnn.v1 import encoder_pb2 as pb
from tests.client.asking import CLIENTS, Kind, ask
from tests.client.fake_service import FakeService, as_int8, from_int8, matrix, normalized, vector

SEQUENCES = ["CCO", "c1ccccc1", "CC(=O)O"]
# Features whose bytes the service takes for sequences.
RAW = [b"CCONCCOC" * steps for steps in (1, 3, 5)]
FEATURES = [np.frombuffer(raw, "<f4").reshape(-1, 2) for raw in RAW]
STRING_METHODS = ["encode", "encode_tokens", "call", "call_tokens", "stream", "stream_tokens"]
FEATURE_METHODS = [
    "encode_features",
    "encode_feature_tokens",
    "call_features",
    "call_feature_tokens",
    "stream_features",
    "stream_feature_tokens",
]


def rows(result: Any) -> list[NDArray[np.float32]]:
    """The vectors, or matrices of tokens, of whatever a method gives."""
    if isinstance(result, birnn.Encodings):
        return list(result.vectors)
    if isinstance(result, birnn.TokenEncodings):
        return result.tokens
    if isinstance(result, list) and isinstance(result[0], birnn.Encodings | birnn.TokenEncodings):
        return [row for part in result for row in rows(part)]
    return list(result)


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.mark.parametrize("method", STRING_METHODS + FEATURE_METHODS)
def test_every_method_encodes_its_input_and_sends_its_options(service: FakeService, kind: Kind, method: str) -> None:
    given, raw = (FEATURES, RAW) if "feature" in method else ([text.encode() for text in SEQUENCES],) * 2
    client = kind(service.address, batch_size=2, element_type="float16")
    options = {"timeout": 60.0, "truncate": True, "normalize": True, "priority": "low"}
    found = rows(ask(client, method, given, "text", 7, **options))
    one = matrix if "tokens" in method else vector
    for row, sequence in zip(found, raw, strict=True):
        np.testing.assert_array_equal(row, normalized(one(sequence)).astype(np.float16))
        assert row.dtype == np.float32
    assert len(service.requests) > 1
    for request in service.requests:
        assert (request.encoder, request.version) == ("text", "7")
        assert (request.truncate, request.normalize, request.priority) == (True, True, pb.PRIORITY_LOW)
        assert request.element_type == pb.ELEMENT_TYPE_FLOAT16
        assert (request.output == pb.OUTPUT_TOKENS) == ("tokens" in method)


@pytest.mark.parametrize("method", ["encode", "encode_tokens", "encode_features", "encode_feature_tokens"])
def test_a_single_sequence_gives_its_own_array(service: FakeService, kind: Kind, method: str) -> None:
    given, raw = (FEATURES[1], RAW[1]) if "feature" in method else ("CCO", b"CCO")
    one = matrix if "tokens" in method else vector
    np.testing.assert_array_equal(ask(kind(service.address), method, given, "smiles"), one(raw))


@pytest.mark.parametrize("element_type", ["float32", "float16", "int8"])
@pytest.mark.parametrize("normalize", [False, True])
def test_numbers_travel_as_asked_and_come_as_float32(
    service: FakeService, kind: Kind, element_type: Any, normalize: bool
) -> None:
    def sent(exact: NDArray[np.float32]) -> NDArray[np.float32]:
        exact = normalized(exact) if normalize else exact
        if element_type == "int8":
            return from_int8(*as_int8(exact))
        return exact.astype(element_type).astype(np.float32)

    client = kind(service.address, element_type=element_type)
    vectors = ask(client, "encode", ["CCO", "!", "CC"], normalize=normalize, on_error="nan")
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[[0, 2]], [sent(vector("CCO")), sent(vector("CC"))])
    assert np.isnan(vectors[1]).all()
    # The first token is a vector of zeros.
    tokens = ask(client, "encode_tokens", ["\0C", "!"], normalize=normalize, on_error="empty")
    np.testing.assert_array_equal(tokens[0], sent(matrix("\0C")))
    assert len(tokens[1]) == 0


@pytest.mark.parametrize("method", ["encode", "encode_tokens", "stream"])
def test_a_server_that_does_not_normalize_is_found_out(service: FakeService, kind: Kind, method: str) -> None:
    service.knows -= {"normalize"}
    client = kind(service.address)
    with pytest.raises(birnn.InconsistentReplyError, match="does not know normalize; update it"):
        ask(client, method, SEQUENCES, normalize=True)
    assert len(rows(ask(client, method, SEQUENCES))) == 3


@pytest.mark.parametrize("element_type", ["float16", "int8"])
def test_a_server_that_sends_another_element_type_is_found_out(
    service: FakeService, kind: Kind, element_type: Any
) -> None:
    service.knows -= {"element_type"}
    with pytest.raises(
        birnn.InconsistentReplyError, match=f"does not know {element_type}; update it, or ask for float32"
    ):
        ask(kind(service.address, element_type=element_type), "encode", SEQUENCES)
    assert len(ask(kind(service.address), "encode", SEQUENCES)) == 3


def test_what_cannot_be_asked_for_is_refused(service: FakeService, kind: Kind) -> None:
    client = kind(service.address)
    for method in ("encode", "call", "stream"):
        with pytest.raises(ValueError, match="priority must be one of high, normal, low, not 'urgent'"):
            ask(client, method, SEQUENCES, priority="urgent")
        with pytest.raises(TypeError, match="unexpected keyword argument 'half'"):
            ask(client, method, [], half=True)
    with pytest.raises(ValueError, match="element_type must be one of float32, float16, int8, not 'float64'"):
        kind(service.address, element_type="float64")  # type: ignore[arg-type]
    assert service.attempts == 0


def test_both_clients_show_the_same_methods_arguments_and_descriptions(kind: Kind) -> None:
    described = {name for name in vars(BaseClient) if not name.startswith("_")}
    assert described >= {*STRING_METHODS, *FEATURE_METHODS, "encoders", "encoder", "close"}
    for name in described:
        method = getattr(kind, name)
        assert inspect.getdoc(method) == inspect.getdoc(getattr(BaseClient, name)), name
        assert inspect.getdoc(method)
        parameters = inspect.signature(method).parameters.values()
        expected = inspect.signature(getattr(BaseClient, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in parameters] == [(p.name, p.kind, p.default) for p in expected], (
            name
        )
