from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from bench.callers import HTTP, Method, deal, infer_request, run_callers
from bench.loads import Load
from birnn_service.protocols.openinference.inputs import read_strings
from tests.e2e.molecules import chains
from tests.e2e.server_process import MODELS, ServerProcess, running

SEQUENCES = [sequence.decode() for sequence in chains(128, 20)]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running(MODELS, "--http-port", "0") as server:
        yield server


def http(server: ServerProcess) -> str:
    return server.rest.removeprefix("http://")


def test_an_inference_request_holds_the_strings_as_the_server_reads_them() -> None:
    assert read_strings(infer_request("smiles", ["CCO", "", "c1ccccc1"]), 3) == [b"CCO", b"", b"c1ccccc1"]


def test_no_two_callers_are_dealt_the_same_sequence() -> None:
    dealt = deal("encode", "smiles", SEQUENCES, Load("", 8, 4))
    held = [{sequence for message in mine for sequence in message.sequences} for mine in dealt]
    assert len(dealt) == 4
    assert all(len(message.sequences) == 8 for mine in dealt for message in mine)
    assert sum(map(len, held)) == len(set.union(*held)) == len(SEQUENCES)


def test_too_few_sequences_for_all_callers_are_an_error() -> None:
    with pytest.raises(ValueError, match="takes 256 sequences, and there are 128"):
        deal("infer", "smiles", SEQUENCES, Load("", 32, 8))


@pytest.mark.parametrize("method", get_args(Method))
def test_callers_measure_a_real_server_from_a_process_of_their_own(
    server: ServerProcess, method: Method, tmp_path: Path
) -> None:
    load = Load("", 2, 3)
    sample = run_callers(
        http(server) if method in HTTP else server.address,
        method,
        "smiles",
        load,
        SEQUENCES,
        seconds=1.0,
        warmup=0.1,
        prefix=[],
        scratch=tmp_path,
    )
    assert sample.calls > 0
    assert sample.sequences_per_second == pytest.approx(2 * sample.calls_per_second)
    assert 0 < sample.p50 <= sample.p99


@pytest.mark.parametrize("method", ["infer", "rest", "openai"])
def test_a_call_that_fails_ends_the_measurement_with_its_reason(
    server: ServerProcess, method: Method, tmp_path: Path
) -> None:
    with pytest.raises(click.ClickException, match="load generator failed"):
        run_callers(
            http(server) if method in HTTP else server.address,
            method,
            "nothing",
            Load("", 1, 1),
            SEQUENCES,
            seconds=1.0,
            warmup=0.0,
            prefix=[],
            scratch=tmp_path,
        )
