"""Whatever happens to a bundle's files under a running server, it answers from the bytes that it checked."""

import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_bundle.bundle import Bundle
from tests.e2e.server_process import MODELS, running

SEQUENCES = [b"C", b"CCO", b"c1ccccc1", b"CC(=O)Oc1ccccc1C(=O)O", b"N[C@@H](C)C(=O)O" * 8]


def overwrite(folder: Path) -> None:
    for file in folder.iterdir():
        size = file.stat().st_size
        with file.open("r+b") as opened:
            opened.write(np.random.default_rng(size).bytes(size))


def truncate(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("r+b") as opened:
            opened.truncate(10)


def replace_by_another(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(MODELS / "text" / "1", folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_answers_stay_right(tmp_path: Path, engine: str) -> None:
    models = tmp_path / "models"
    shutil.copytree(MODELS / "smiles-small", models / "smiles-small")
    dimension = Bundle.load(models / "smiles-small" / "1").manifest.dimension
    arguments = ("--engine", engine, "--slots", "2", "--health-seconds", "0.2")
    with running(models, *arguments) as server, grpc.insecure_channel(server.address) as channel:
        encode: Callable[[pb.EncodeRequest], pb.EncodeResponse] = EncoderServiceStub(channel).Encode

        def vectors(sequences: list[bytes], output: pb.Output.ValueType = pb.OUTPUT_POOLED) -> np.ndarray:
            reply = encode(pb.EncodeRequest(sequences=sequences, output=output))
            return np.frombuffer(reply.embeddings, dtype="<f4").reshape(reply.shape)

        pooled, tokens = vectors(SEQUENCES), vectors(SEQUENCES, pb.OUTPUT_TOKENS)
        assert pooled.shape == (len(SEQUENCES), dimension)
        for change in (overwrite, truncate, replace_by_another, remove):
            change(models / "smiles-small" / "1")
            for row, sequence in enumerate(SEQUENCES * 3):
                alone = vectors([sequence])[0]
                assert np.abs(alone - pooled[row % len(SEQUENCES)]).max() < 1e-5, change
            assert np.abs(vectors(SEQUENCES) - pooled).max() < 1e-5, change
            assert np.abs(vectors(SEQUENCES, pb.OUTPUT_TOKENS) - tokens).max() < 1e-5, change
        assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
        assert server.metric("birnn_health_probes_total", outcome="failed") == 0
