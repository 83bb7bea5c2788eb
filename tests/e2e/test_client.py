import asyncio
import random

import numpy as np
import pytest

import birnn
from tests.e2e.molecules import molecules
from tests.e2e.server_process import SMILES, ServerProcess

GARBAGE: list[str | bytes] = ["", "what is this?", "C" * 100_000, b"C\xff"]


def test_one_by_one_and_in_one_call_give_the_same_vectors(server: ServerProcess) -> None:
    strings = molecules(200)
    random.Random(0).shuffle(strings)
    with birnn.Client(server.address, batch_size=64) as client:
        together = client.encode(strings)
        alone = np.stack([client.encode(string) for string in strings])
    assert together.dtype == np.float32
    assert together.shape == (200, SMILES.dimension)
    assert np.abs(together - alone).max() < 1e-5


def test_the_last_token_s_forward_half_and_the_first_one_s_backward_half_are_the_pooled_vector(
    server: ServerProcess,
) -> None:
    with birnn.Client(server.address) as client:
        pooled = client.encode(["CC(=O)Oc1ccccc1C(=O)O"], version=1)[0]
        (tokens,) = client.encode_tokens(["CC(=O)Oc1ccccc1C(=O)O"], version=1)
    assert tokens.shape == (21, 512)
    assert np.abs(np.concatenate([tokens[-1, :256], tokens[0, 256:]]) - pooled).max() < 1e-5


def test_bad_items_are_named_and_the_others_can_be_kept(server: ServerProcess) -> None:
    with birnn.Client(server.address) as client:
        with pytest.raises(birnn.SequenceError, match="4 of 6 sequences") as caught:
            client.encode(["CCO", *GARBAGE, "CC"])
        kept = client.encode(["CCO", *GARBAGE, "CC"], on_error="nan")
    assert [error.index for error in caught.value.errors] == [1, 2, 3, 4]
    assert np.isnan(kept[1:5]).all()
    assert np.isfinite(kept[[0, 5]]).all()


def test_nothing_in_is_nothing_out_of_the_right_width(server: ServerProcess) -> None:
    with birnn.Client(server.address) as client:
        assert client.encode([]).shape == (0, SMILES.dimension)


def test_encoders_are_described(server: ServerProcess) -> None:
    with birnn.Client(server.address) as client:
        assert {(info.name, info.version): info.dimension for info in client.encoders()} == {
            ("smiles", "1"): 512,
            ("smiles", "2"): 1024,
            ("smiles-small", "1"): 512,
            ("text", "1"): 512,
            ("text", "2"): 512,
        }
        with pytest.raises(birnn.UnknownEncoderError, match="smiles, smiles-small, text"):
            client.encode(["C"], encoder="protein")


def test_asynchronous_callers_share_the_server_and_get_their_own(server: ServerProcess) -> None:
    async def scenario() -> None:
        strings = molecules(120)
        async with birnn.AsyncClient(server.address) as client:
            together = await client.encode(strings)
            parts = await asyncio.gather(*(client.encode(strings[start : start + 5]) for start in range(0, 120, 5)))
        assert np.abs(np.concatenate(parts) - together).max() < 1e-5

    asyncio.run(scenario())


def test_a_stream_of_requests_gives_what_calls_give(server: ServerProcess) -> None:
    strings = [*molecules(120), *GARBAGE]

    async def asynchronous() -> list[birnn.Encodings]:
        async with birnn.AsyncClient(server.address, batch_size=10) as client:
            return [part async for part in client.stream(strings, timeout=60)]

    with birnn.Client(server.address, batch_size=10) as client:
        together = client.encode(strings, on_error="nan")
        for parts in (list(client.stream(strings, timeout=60)), asyncio.run(asynchronous())):
            np.testing.assert_allclose(np.concatenate([part.vectors for part in parts]), together, atol=1e-5)
        with pytest.raises(birnn.UnknownEncoderError, match="smiles, smiles-small, text"):
            next(client.stream(strings, "protein"))
        assert client._connection.streams
