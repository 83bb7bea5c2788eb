"""A candidate is asked for a share of the traffic of a real server, and answers none of it."""

from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from birnn import Client
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_service.shadow import drift
from tests.e2e.server_process import running, until
from tests.e2e.swapping import SEQUENCES, SETTINGS, index, vectors
from tests.service.engine.bundles import version_of

NAME = "small"
CALLS = 40


def matrix(bundle: Path) -> NDArray[np.float32]:
    return np.frombuffer(vectors(bundle), dtype="<f4").reshape(len(SEQUENCES), -1)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two versions of one encoder."""
    for version, largest in ((1, 0.3), (2, 0.4)):
        version_of(tmp_path / "models", NAME, version, largest)
    return tmp_path / "models"


@pytest.mark.parametrize("front_ends", [0, 2])
def test_a_candidate_is_compared_on_its_share_and_takes_no_calls(models: Path, front_ends: int) -> None:
    first, second = models / NAME / "1", models / NAME / "2"
    # It is there beside the latest one, and not instead of it.
    arguments = (*SETTINGS, "--shadow", f"{NAME}/2=0.5", "--versions", "latest:1", "--frontends", str(front_ends))
    labels = {"encoder": NAME, "candidate": "2"}
    with running(models, *arguments) as server, grpc.insecure_channel(server.address) as channel:
        encode = EncoderServiceStub(channel).Encode
        request = pb.EncodeRequest(encoder=NAME, sequences=SEQUENCES)
        for _ in range(CALLS):
            reply = encode(request)
            assert reply.version == "1"
            assert reply.embeddings == vectors(first)
        wanted = CALLS // 2
        until(lambda: server.metric("birnn_shadow_requests_total", **labels) == wanted)
        answered = server.metric("birnn_shadow_requests_total", **labels, outcome="answered")
        # One is skipped only where the candidate is behind.
        assert answered + server.metric("birnn_shadow_requests_total", **labels, outcome="skipped") == wanted
        assert server.metric("birnn_shadow_sequences_total", **labels, outcome="compared") == answered * len(SEQUENCES)
        expected = answered * drift(matrix(first), matrix(second)).sum()
        assert server.metric("birnn_shadow_drift_sum", **labels) == pytest.approx(expected, rel=1e-4)
        # Who names the candidate gets it.
        request.version = "2"
        assert encode(request).embeddings == vectors(second)
        with Client(server.address) as client:
            # By this, `birnn encode` says which version is to answer.
            assert client.encoder(NAME).version == "1"
            assert client.encoder(NAME, 2).candidate
            assert {info.version: info.candidate for info in client.encoders()} == {"1": False, "2": True}


@pytest.mark.parametrize("front_ends", [0, 2])
def test_what_a_candidate_was_asked_for_tells_nobody_what_others_ask_for(models: Path, front_ends: int) -> None:
    arguments = (*SETTINGS, "--shadow", f"{NAME}/2=1", "--frontends", str(front_ends), "--cache-mib", "8")
    with (
        running(models, *arguments, "--caller-header", "x-caller") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        encode = EncoderServiceStub(channel).Encode
        encode(pb.EncodeRequest(encoder=NAME, sequences=SEQUENCES), metadata=[("x-caller", "lab")])
        until(partial(server.metric, "birnn_shadow_requests_total", outcome="answered"))
        encode(pb.EncodeRequest(encoder=NAME, version="2", sequences=SEQUENCES))
        encode(pb.EncodeRequest(encoder=NAME, version="2", sequences=SEQUENCES), metadata=[("x-caller", "other")])
        assert server.metric("birnn_cache_hits_total") == 0


def test_a_candidate_that_is_broken_or_gone_costs_nobody_anything(models: Path) -> None:
    (models / NAME / "2" / "weights.bin").write_bytes(b"")
    with (
        running(models, *SETTINGS, "--shadow", f"{NAME}/2=1,{NAME}/3=1") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert index(server)[NAME, "2"][0] == "UNAVAILABLE"
        reply = EncoderServiceStub(channel).Encode(pb.EncodeRequest(encoder=NAME, sequences=SEQUENCES))
        assert reply.embeddings == vectors(models / NAME / "1")
        for version in ("2", "3"):
            until(partial(server.metric, "birnn_shadow_requests_total", candidate=version, outcome="failed"))
        assert server.get("/readyz")[0] == 200
