import random
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import birnn
from birnn import Client
from tests.client.asking import CLIENTS, Kind, ask
from tests.client.fake_service import (
    DIMENSION,
    MAX_LENGTH,
    TOKEN_DIMENSION,
    Failure,
    FakeService,
    matrix,
    serving,
    vector,
)

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "C[N+](C)(C)C", "N#N"]


def many(count: int) -> list[str]:
    return [f"C{number}" for number in range(count)]


def test_rows_are_aligned_with_the_sequences(client: Client) -> None:
    vectors = client.encode(MOLECULES)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [vector(molecule) for molecule in MOLECULES])


def test_a_single_sequence_gives_a_single_vector(client: Client) -> None:
    np.testing.assert_array_equal(client.encode("CCO"), vector("CCO"))
    np.testing.assert_array_equal(client.encode(b"CCO"), vector("CCO"))
    np.testing.assert_array_equal(client.encode_tokens("CCO"), matrix("CCO"))
    assert len(client.call("CCO")) == 1
    assert [len(part) for part in client.stream("CCO")] == [1]


def test_a_large_input_is_split_and_comes_back_in_order(service: FakeService, client: Client) -> None:
    service.delays = random.Random(1)
    sequences = many(500)
    np.testing.assert_array_equal(client.encode(sequences), [vector(sequence) for sequence in sequences])
    assert len(service.requests) == 32
    assert max(len(request.sequences) for request in service.requests) == 16


def test_a_request_of_long_sequences_holds_fewer_of_them(service: FakeService, client: Client) -> None:
    client.encode([b"C" * 400_000] * 5, on_error="nan")
    assert sorted(len(request.sequences) for request in service.requests) == [1, 2, 2]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sequences=st.lists(st.binary(min_size=1, max_size=MAX_LENGTH + 2), min_size=1, max_size=60),
    batch_size=st.integers(1, 70),
)
def test_splitting_changes_nothing(service: FakeService, sequences: list[bytes], batch_size: int) -> None:
    with Client(service.address, batch_size=1000) as whole, Client(service.address, batch_size=batch_size) as split:
        expected, answer = whole.call(sequences), split.call(sequences)
        tokens = split.encode_tokens(sequences, on_error="empty")
    np.testing.assert_array_equal(answer.vectors, expected.vectors)
    np.testing.assert_array_equal(answer.lengths, expected.lengths)
    assert answer.errors == expected.errors
    assert answer.notices == expected.notices
    assert [len(rows) for rows in tokens] == answer.lengths.tolist()


def test_generators_are_taken(client: Client) -> None:
    assert client.encode(molecule for molecule in MOLECULES).shape == (5, DIMENSION)


def test_the_caller_may_write_to_the_vectors(client: Client) -> None:
    client.encode(MOLECULES)[0] = 0


def test_no_sequences_give_no_rows_of_the_right_width(service: FakeService, client: Client) -> None:
    vectors = client.encode([])
    assert vectors.shape == (0, DIMENSION)
    assert vectors.dtype == np.float32
    assert client.encode_tokens([]) == []
    assert client.call([]).version == "10"
    assert not service.requests


def test_no_sequences_for_an_unknown_encoder_are_an_error(client: Client) -> None:
    with pytest.raises(birnn.UnknownEncoderError, match="smiles version 10, text version 1"):
        client.encode([], "nothing")


def test_tokens_come_one_array_a_sequence(service: FakeService, client: Client) -> None:
    sequences = many(50)
    tokens = client.encode_tokens(sequences)
    for rows, sequence in zip(tokens, sequences, strict=True):
        np.testing.assert_array_equal(rows, matrix(sequence))
    assert tokens[0].dtype == np.float32
    assert max(len(request.sequences) for request in service.requests) == 2


def test_token_arrays_are_views_of_the_reply(client: Client) -> None:
    first, second = client.encode_tokens(["CC", "CCO"])
    assert first.base is not None
    assert not first.flags.owndata
    assert np.shares_memory(np.asarray(first.base), second)


def test_failed_sequences_are_raised_by_position_with_their_reasons(client: Client) -> None:
    sequences = many(100)
    for position in (3, 20, 21, 22, 50, 90, 99):
        sequences[position] = "!"
    with pytest.raises(birnn.SequenceError) as caught:
        client.encode(sequences)
    assert [error.index for error in caught.value.errors] == [3, 20, 21, 22, 50, 90, 99]
    assert "7 of 100" in str(caught.value)
    assert "sequence 3: cannot read '!'" in str(caught.value)
    assert "and 2 more" in str(caught.value)


def test_failed_sequences_can_be_rows_of_nan(client: Client) -> None:
    sequences: list[str | bytes] = ["CCO", "", b"\xff\xfe", "C!", "C" * (MAX_LENGTH + 1), "\ud800", "CC"]
    vectors = client.encode(sequences, on_error="nan")
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True, True, True, True, False]
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, True, True, True, True, False]
    codes = [error.code.name for error in client.call(sequences).errors]
    assert codes == ["EMPTY", "NOT_UTF8", "UNKNOWN_CHARACTERS", "TOO_LONG", "NOT_UTF8"]


def test_failed_sequences_can_have_no_token_rows(client: Client) -> None:
    tokens = client.encode_tokens(["CC", "!", "C"], on_error="empty")
    assert [rows.shape for rows in tokens] == [(2, TOKEN_DIMENSION), (0, TOKEN_DIMENSION), (1, TOKEN_DIMENSION)]
    with pytest.raises(birnn.SequenceError):
        client.encode_tokens(["CC", "!", "C"])


def test_a_call_tells_what_the_server_told(service: FakeService, client: Client) -> None:
    sequences = many(20)
    sequences[18] = "C" * (MAX_LENGTH + 5)
    sequences[19] = "C?"
    answer = client.call(sequences, version=2, truncate=True)
    assert (answer.encoder, answer.version, answer.errors) == ("smiles", "2", ())
    assert answer.notices == (birnn.ItemNotice(18, 0, 5), birnn.ItemNotice(19, 1, 0))
    assert answer.lengths.tolist() == [*(len(sequence) for sequence in sequences[:18]), MAX_LENGTH, 2]
    assert [timings.total for timings in answer.timings] == [0.001, 0.001]
    assert {request.version for request in service.requests} == {"2"}


def test_a_call_names_each_engine_that_answered_a_part_of_it_once(service: FakeService, client: Client) -> None:
    assert client.call(many(40)).engines == ("hash 1, cpu, float32",)
    assert client.call_tokens(many(3)).engines == ("hash 1, cpu, float32",)
    service.engine_of_call = {len(service.requests): "hash 2, cuda:0, float16"}
    assert sorted(client.call(many(40)).engines) == ["hash 1, cpu, float32", "hash 2, cuda:0, float16"]
    service.engine_of_call = dict.fromkeys(range(100), "")
    assert client.call(many(40)).engines == ()


def test_something_that_is_no_sequence_is_named(client: Client) -> None:
    with pytest.raises(TypeError, match=r"sequence 1 is 3\.5, a float"):
        client.encode(["CC", 3.5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a ndarray, and not a str or bytes; float features go to encode_features"):
        client.encode([np.zeros((2, 3))])  # type: ignore[list-item]


def test_a_stream_reads_only_as_far_ahead_as_calls_are_in_flight(service: FakeService) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"C{taken}"

    with Client(service.address, batch_size=10, in_flight=3) as client:
        parts = client.stream(endless())
        for number in range(5):
            part = next(parts)
            expected = [vector(f"C{10 * number + offset}") for offset in range(1, 11)]
            np.testing.assert_array_equal(part.vectors, expected)
            assert taken <= 10 * (number + 3) + 1


def test_a_stream_counts_positions_from_each_part(client: Client) -> None:
    sequences = many(20)
    sequences[17] = "!"
    assert [[error.index for error in part.errors] for part in client.stream(sequences)] == [[], [1]]
    assert [len(part.tokens) for part in client.stream_tokens(["C"] * 5)] == [2, 2, 1]


def test_leaving_a_stream_cancels_the_calls_under_way(service: FakeService, client: Client) -> None:
    service.hold, service.never_held = threading.Event(), b"C0"
    parts = client.stream(many(1000))
    next(parts)
    assert service.held.wait(60)
    parts.close()
    assert service.cancelled.wait(60)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_calls_are_repeated_while_the_server_is_unavailable_or_overloaded(
    service: FakeService, client: Client, code: grpc.StatusCode
) -> None:
    service.failures.extend([Failure(code)] * 2)
    np.testing.assert_array_equal(client.encode(["CCO"]), [vector("CCO")])
    assert service.attempts == 3


def test_a_large_request_is_repeated_too(service: FakeService) -> None:
    service.failures.append(Failure(grpc.StatusCode.UNAVAILABLE))
    with Client(service.address, batch_size=20_000) as client:
        assert client.encode(["C" * 40] * 20_000).shape == (20_000, DIMENSION)
    assert service.attempts == 2
    assert service.requests[0].ByteSize() > 256 * 1024


def test_the_server_says_when_to_call_again(service: FakeService, client: Client) -> None:
    service.failures.extend([Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback=0.01)] * 4)
    client.encode(["CCO"])
    assert service.attempts == 5


def test_an_overload_that_lasts_is_raised_with_the_time_to_wait(service: FakeService, client: Client) -> None:
    service.failures.extend([Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "backlog of 31 s", pushback=0.02)] * 5)
    with pytest.raises(birnn.OverloadedError, match=r"backlog of 31 s; try again in 0.02 s") as caught:
        client.encode(["CCO"])
    assert caught.value.retry_after == pytest.approx(0.02)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, birnn.InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, birnn.UnknownEncoderError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, birnn.DeadlineError),
        (grpc.StatusCode.INTERNAL, birnn.EncodeError),
    ],
)
def test_other_failures_are_raised_at_once(
    service: FakeService, client: Client, code: grpc.StatusCode, kind: type[birnn.EncodeError]
) -> None:
    service.failures.append(Failure(code, "because of this"))
    with pytest.raises(kind, match="because of this") as caught:
        client.encode(["CCO"])
    assert type(caught.value) is kind
    assert caught.value.code is code
    assert service.attempts == 1


def test_an_unknown_encoder_lists_what_is_served(client: Client) -> None:
    with pytest.raises(birnn.UnknownEncoderError, match="no encoder 'smile'; served are: smiles, text"):
        client.encode(["CCO"], "smile")


def test_the_timeout_is_the_deadline_of_the_whole_input(service: FakeService, client: Client) -> None:
    service.hold = threading.Event()
    with pytest.raises(birnn.DeadlineError, match=r"timeout of 0.2 s"):
        client.encode(many(200), timeout=0.2)
    # On a slow machine the server may not have begun.
    if service.held.is_set():
        assert service.cancelled.wait(60)


def test_an_unreachable_server_is_named_with_what_to_do() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(birnn.ServerUnreachableError) as caught:
        client.encode(["CCO"], timeout=120)
    assert "127.0.0.1:1" in str(caught.value)
    assert "birnn serve" in str(caught.value)


def test_a_name_that_cannot_be_resolved_is_unreachable() -> None:
    with Client("nowhere.invalid:8001") as client, pytest.raises(birnn.ServerUnreachableError):
        client.encoders()


def test_a_reply_of_the_wrong_size_is_an_error(service: FakeService, client: Client) -> None:
    service.drop_a_row = True
    with pytest.raises(birnn.InconsistentReplyError, match="2 sequences were sent"):
        client.encode(["CCO", "CC"])


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("method", ["encode", "stream"])
def test_replies_beyond_grpc_s_own_limit_of_4_mib_are_taken(service: FakeService, kind: Kind, method: str) -> None:
    service.engine_of_call = {0: "x" * (5 << 20)}
    assert len(ask(kind(service.address), method, ["CCO"])) == 1


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("method", ["encode", "stream"])
def test_a_request_that_is_too_large_for_the_server_is_not_repeated(kind: Kind, method: str) -> None:
    with (
        serving(longest_message=1000) as service,
        pytest.raises(birnn.InvalidRequestError, match=r"larger than max.*use a smaller batch_size"),
    ):
        ask(kind(service.address), method, ["C" * 2000])


def test_encoders_are_listed(client: Client) -> None:
    infos = client.encoders()
    assert [(info.name, info.version, info.ready) for info in infos] == [
        ("smiles", "2", True),
        ("smiles", "10", True),
        ("text", "1", True),
        ("broken", "1", False),
    ]
    assert infos[0].dimension == DIMENSION
    assert client.encoder("smiles").version == "10"
    with pytest.raises(birnn.UnknownEncoderError):
        client.encoder("broken")


def test_threads_may_share_a_client(service: FakeService, client: Client) -> None:
    service.delays = random.Random(2)
    wrong: list[int] = []

    def work(number: int) -> None:
        sequences = [f"{number}-{item}" for item in range(60)]
        if not np.array_equal(client.encode(sequences), [vector(sequence) for sequence in sequences]):
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_credentials_are_used(service: FakeService) -> None:
    with (
        serving(grpc.local_server_credentials()) as local,
        Client(local.address, credentials=grpc.local_channel_credentials()) as client,
    ):
        np.testing.assert_array_equal(client.encode("CCO"), vector("CCO"))
    with (
        Client(service.address, credentials=grpc.ssl_channel_credentials()) as stranger,
        pytest.raises(birnn.EncodeError),
    ):
        stranger.encoders(timeout=0.5)
