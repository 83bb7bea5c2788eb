"""Inputs that are encoded while the server begins to serve another version: their vectors are all of one."""

from itertools import pairwise

import grpc
import numpy as np
import pytest

import birnn
from birnn.core import VERSION_CHANGES
from tests.client.asking import CLIENTS, Kind, ask
from tests.client.fake_service import FakeService, matrix, vector

SEQUENCES = [f"C{number}" for number in range(200)]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("encoder", ["smiles", "text"])
def test_a_version_that_appears_meanwhile_answers_no_part(service: FakeService, kind: Kind, encoder: str) -> None:
    service.versions_from = {0: ("10",), 5: ("10", "11")}
    with_parts = kind(service.address, batch_size=10)
    whole = ask(with_parts, "call", SEQUENCES, encoder)
    assert whole.version == "10"
    np.testing.assert_array_equal(whole.vectors, [vector(sequence) for sequence in SEQUENCES])
    assert service.requests[-1].version == "10"


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_stream_stays_with_the_version_that_answered_first(service: FakeService, kind: Kind) -> None:
    service.versions_from = {0: ("10",), 5: ("10", "11")}
    parts = ask(kind(service.address, batch_size=10), "stream", SEQUENCES)
    assert {part.version for part in parts} == {"10"}
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), [vector(s) for s in SEQUENCES])


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_input_whose_version_is_gone_is_encoded_anew(service: FakeService, kind: Kind) -> None:
    service.versions_from = {0: ("10",), 7: ("11",)}
    client = kind(service.address, batch_size=10)
    whole = ask(client, "call", SEQUENCES)
    assert whole.version == "11"
    np.testing.assert_array_equal(whole.vectors, [vector(sequence) for sequence in SEQUENCES])
    service.versions_from = {0: ("11",), len(service.requests) + 7: ("12",)}
    tokens = ask(client, "encode_tokens", SEQUENCES)
    assert all(np.array_equal(found, matrix(s)) for found, s in zip(tokens, SEQUENCES, strict=True))


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_stream_whose_version_is_gone_says_so(service: FakeService, kind: Kind) -> None:
    service.versions_from = {0: ("10",), 7: ("11",)}
    with pytest.raises(
        birnn.VersionGoneError, match="stopped serving the version that answered the first part"
    ) as caught:
        ask(kind(service.address, batch_size=10), "stream", SEQUENCES)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("kind", CLIENTS)
def test_versions_that_change_all_the_time_end_a_call(service: FakeService, kind: Kind) -> None:
    service.versions_from = {call: (str(10 + call),) for call in range(1000)}
    client = kind(service.address, batch_size=10, in_flight=1)
    with pytest.raises(birnn.VersionGoneError):
        ask(client, "call", SEQUENCES)
    firsts = [earlier for earlier, later in pairwise(service.requests) if not earlier.version and later.version]
    assert len(firsts) == VERSION_CHANGES + 1


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_version_that_was_asked_for_and_is_gone_is_unknown(service: FakeService, kind: Kind) -> None:
    service.versions_from = {0: ("10", "11"), 7: ("11",)}
    with pytest.raises(birnn.UnknownEncoderError, match="no version 10") as caught:
        ask(kind(service.address, batch_size=10), "call", SEQUENCES, version=10)
    assert not isinstance(caught.value, birnn.VersionGoneError)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("method", ["call", "stream"])
def test_a_server_that_answers_with_other_versions_than_asked_for_is_found_out(
    service: FakeService, kind: Kind, method: str
) -> None:
    service.version_of_call = dict.fromkeys(range(1, 1000), "11")
    client = kind(service.address, batch_size=10, in_flight=1)
    with pytest.raises(birnn.InconsistentReplyError, match=r"smiles version 10 answered .* version 11 a later one"):
        ask(client, method, SEQUENCES)
