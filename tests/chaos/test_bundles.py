"""Hostile bundles beside a healthy one: whatever they hold, the healthy one is served, and answers right."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_bundle.bundle import Bundle
from tests.chaos.hostile_bundles import ATTACKS, HEALTHY, healthy_copy, seal
from tests.chaos.outcomes import Outcomes, attack
from tests.e2e.server_process import MODELS, ServerProcess, running

FILES = ["manifest.json", "tokenizer.json", "pooled.onnx", "tokens.onnx", "golden.safetensors", "weights.bin"]
BUNDLES_A_SERVER = 60
HOSTILE_VALUES: list[Any] = [
    None, True, -1, 0, 1 << 31, 1 << 63, 1 << 200, 1.5, 1e308, "", "1", "١", "\x00", "\x1b[2J", "x" * 100_000, [], {},
    ["x"] * 5000, {"x": {"y": {"z": []}}}, "../../etc/passwd", "README.md",
]  # fmt: skip


@contextmanager
def stub_of(server: ServerProcess) -> Iterator[EncoderServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield EncoderServiceStub(channel)


def ask_golden(stub: EncoderServiceStub, outcomes: Outcomes) -> None:
    """Ask the healthy encoder for golden sequences, one by one and all together."""
    bundle = Bundle.load(MODELS / HEALTHY / "1")
    golden = bundle.golden
    rows = [row for row in range(len(golden.batch)) if golden.batch.lengths[row] < 200]
    texts = [bundle.tokenizer.decode(golden.batch.row(row).tolist()).encode() for row in rows]
    known = [
        (row, text)
        for row, text in zip(rows, texts, strict=True)
        if np.array_equal(bundle.tokenizer.tokenize([text], 1000).batch.values, golden.batch.row(row))
    ]
    assert len(known) >= 3
    for some in ([pair] for pair in known), [known]:
        for pairs in some:
            reply = stub.Encode(pb.EncodeRequest(encoder=HEALTHY, sequences=[text for _, text in pairs]), timeout=120)
            found = np.frombuffer(reply.embeddings, dtype="<f4").reshape(reply.shape)
            error = np.abs(found - golden.pooled[[row for row, _ in pairs]]).max()
            outcomes.count("answered" if error < 1e-4 else "wrong")


@pytest.mark.quick
@pytest.mark.skipif(os.name == "nt", reason="needs FIFOs and links")
def test_a_healthy_bundle_is_served_beside_every_hostile_one(tmp_path: Path) -> None:
    models = tmp_path / "models"
    healthy_copy(models, HEALTHY)
    for name, spoil in ATTACKS.items():
        spoil(healthy_copy(models, name))
    # Other places for good bundles: versions of several spellings, names of any bytes, and of another case.
    for version in ("01", "١", "1 ", "1_0", "+1"):
        shutil.copytree(MODELS / HEALTHY / "1", models / HEALTHY / version)
    for name in ("\x1b[31mred\n", "n" * 255, HEALTHY.upper(), os.fsdecode(b"\xff\xfe")):
        shutil.copytree(MODELS / HEALTHY / "1", models / name / "1")
    (models / "loop").symlink_to("loop")
    with attack("hostile bundles beside a healthy one") as outcomes:
        with running(models) as server, stub_of(server) as stub:
            ask_golden(stub, outcomes)
            listed = list(stub.ListEncoders(pb.ListEncodersRequest()).encoders)
            assert [(one.name, one.version) for one in listed if one.ready] == [(HEALTHY, "1")]
            refused = {one.name: one.description for one in listed if not one.ready}
            assert set(ATTACKS) <= set(refused)
            assert len(listed) == 1 + len(ATTACKS) + 5 + 4
            for name, description in refused.items():
                assert str(tmp_path) not in description, name
                assert len(description) < 1000, name
                assert description.isprintable(), name
            for name in ATTACKS:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Encode(pb.EncodeRequest(encoder=name, sequences=[b"C"]), timeout=120)
                assert isinstance(caught.value, grpc.Call)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, name
                outcomes.count("refused")
            assert server.get("/healthz")[0] == 200
            assert server.metric("birnn_encoder_ready") == 1
            ask_golden(stub, outcomes)
            log = server.log.copy()
        assert all(line.rstrip("\n").isprintable() and len(line) < 4000 for line in log)
        assert "Traceback" not in "".join(log)
        outcomes.assert_unharmed()


def mutate(folder: Path, random: np.random.Generator) -> None:
    """Change one file of a bundle: some bytes of it, its length, or a value of its JSON."""
    path = folder / random.choice(FILES, p=[0.25, 0.2, 0.2, 0.2, 0.1, 0.05])
    if path.suffix == ".json" and random.random() < 0.6:
        path.write_text(json.dumps(with_hostile_value(json.loads(path.read_text()), random), ensure_ascii=False))
    else:
        raw = bytearray(path.read_bytes())
        place = int(random.integers(len(raw)))
        match random.choice(["flip", "cut", "repeat", "junk"]):
            case "flip":
                for _ in range(int(random.integers(1, 8))):
                    raw[int(random.integers(len(raw)))] ^= 1 << int(random.integers(8))
            case "cut":
                del raw[place:]
            case "repeat":
                raw[place:place] = raw[place : place + 1000] * 3
            case "junk":
                raw[place : place + 20] = random.bytes(20)
        path.write_bytes(raw)
    if path.name != "manifest.json":
        seal(folder)


def with_hostile_value(content: Any, random: np.random.Generator) -> Any:
    """`content` with one of its values replaced."""
    if isinstance(content, dict | list) and content and random.random() < 0.8:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        key = keys[int(random.integers(len(keys)))]
        content[key] = with_hostile_value(content[key], random)
        return content
    return HOSTILE_VALUES[int(random.integers(len(HOSTILE_VALUES)))]


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_bundle_is_served_beside_mutated_ones(tmp_path: Path, seed: int, engine: str) -> None:
    random = np.random.default_rng(seed)
    models = tmp_path / "models"
    healthy_copy(models, HEALTHY)
    for number in range(BUNDLES_A_SERVER):
        mutate(healthy_copy(models, f"mutated-{number}"), random)
    with attack(f"{BUNDLES_A_SERVER} mutated bundles, {engine}, seed {seed}") as outcomes:
        with running(models, "--engine", engine) as server, stub_of(server) as stub:
            ask_golden(stub, outcomes)
            listed = list(stub.ListEncoders(pb.ListEncodersRequest()).encoders)
            assert len(listed) == 1 + BUNDLES_A_SERVER
            for encoder in listed:
                request = pb.EncodeRequest(encoder=encoder.name, sequences=[b"CCO", b"c1ccccc1", b"[Xx]", b"C" * 300])
                call = stub.Encode.future(request, timeout=120)
                code = call.code()
                if code is grpc.StatusCode.OK:
                    outcomes.count("answered" if encoder.ready else "wrong")
                else:
                    expected = code is grpc.StatusCode.UNAVAILABLE and not encoder.ready
                    outcomes.count("refused" if expected else "lost")
            ask_golden(stub, outcomes)
            assert server.get("/healthz")[0] == 200
            outcomes.note = f"{sum(encoder.ready for encoder in listed) - 1} of them served"
        outcomes.assert_unharmed()
