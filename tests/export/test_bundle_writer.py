import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError
from birnn_bundle.manifest import MANIFEST_FILE
from birnn_export.bundle_writer import ExportError, write_bundle
from birnn_export.encoders import SequenceEncoder
from birnn_export.engine_errors import VerificationError
from birnn_export.recurrent_weights import WeightsError
from birnn_export.training.checkpoint import CheckpointError, load_encoder, write_weights
from birnn_service.engine.loading import load_engine
from tests.export.small_encoders import (
    CORES,
    FACTS,
    MOLECULES,
    POOLINGS,
    make_stiff,
    run_graph,
    session_of,
    write_checkpoint,
)

FILES = ["README.md", "golden.safetensors", "pooled.onnx", "tokenizer.json", "tokens.onnx", "weights.bin"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "models" / "small" / "1"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pooled_by_torch(encoder: SequenceEncoder, bundle: Bundle, sequences: list[str]) -> np.ndarray[Any, Any]:
    batch = bundle.tokenizer.tokenize(sequences, bundle.manifest.max_length).batch
    with torch.inference_mode():
        ids = torch.from_numpy(batch.padded().T.copy()).long()
        pooled: np.ndarray[Any, Any] = encoder.double()(ids, torch.from_numpy(batch.lengths)).numpy()
    return pooled


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_a_written_bundle_loads_and_encodes_like_the_checkpoint(
    tmp_path: Path, destination: Path, architecture: str, nonlinearity: str, pooling: str
) -> None:
    encoder = write_checkpoint(tmp_path / "run", pooling, architecture=architecture, nonlinearity=nonlinearity)
    write_bundle(load_encoder(tmp_path / "run"), destination)
    bundle = Bundle.load(destination)
    batch = bundle.tokenizer.tokenize(MOLECULES, 40).batch
    found = run_graph(session_of(destination / bundle.manifest.graphs.pooled), batch.padded(), batch.lengths.tolist())
    assert np.abs(found - pooled_by_torch(encoder, bundle, MOLECULES)).max() < 1e-5


def test_the_manifest_says_what_the_checkpoint_is(tmp_path: Path, destination: Path) -> None:
    encoder = write_checkpoint(tmp_path / "run", "mean+max", architecture="birnn", nonlinearity="relu", layers=2)
    manifest = write_bundle(
        load_encoder(tmp_path / "run"), destination, description="Small.", metrics={"lipo_r2": 0.5}
    ).manifest
    assert (manifest.name, manifest.version, manifest.description) == ("small", 1, "Small.")
    assert (manifest.architecture, manifest.nonlinearity, manifest.pooling) == ("birnn", "relu", "mean+max")
    assert (manifest.embedding_size, manifest.hidden_size, manifest.layers, manifest.bias) == (5, 4, 2, True)
    assert (manifest.dimension, manifest.token_dimension, manifest.max_length) == (16, 8, 40)
    assert manifest.vocab_size == encoder.config.vocab_size
    assert manifest.training.model_dump() == {**FACTS, "metrics": {"validation_total": 1.5, "lipo_r2": 0.5}}
    assert 0 < manifest.verification.max_error_pooled < manifest.tolerance == 1e-5
    reduced = manifest.precisions["fp16"]
    assert reduced.golden is not None
    assert 1e-5 < reduced.golden.max_error < reduced.tolerance < 0.1
    assert manifest.reduced_precision is None
    assert sorted(manifest.files) == FILES


@pytest.mark.parametrize(("architecture", "nonlinearity"), [("birnn-scratch", "tanh"), ("bigru", None)])
def test_the_manifest_names_a_nonlinearity_for_plain_rnns_only(
    tmp_path: Path, destination: Path, architecture: str, nonlinearity: str | None
) -> None:
    write_checkpoint(tmp_path / "run", architecture=architecture)
    assert write_bundle(load_encoder(tmp_path / "run"), destination).manifest.nonlinearity == nonlinearity


def test_golden_vectors_go_from_one_token_to_the_longest_sequence(checkpoint: Path, destination: Path) -> None:
    bundle = write_bundle(load_encoder(checkpoint), destination)
    assert (bundle.golden.batch.lengths.min(), bundle.golden.batch.lengths.max()) == (1, 40)


def test_longer_sequences_than_in_training_are_accepted_where_asked_for(checkpoint: Path, destination: Path) -> None:
    bundle = write_bundle(load_encoder(checkpoint), destination, max_length=70)
    assert bundle.manifest.max_length == bundle.golden.batch.lengths.max() == 70


def test_golden_sequences_are_real_ones_where_given(checkpoint: Path, destination: Path) -> None:
    bundle = write_bundle(load_encoder(checkpoint), destination, sequences=[*MOLECULES, "not a molecule", ""])
    golden = bundle.golden.batch
    texts = {bundle.tokenizer.decode(golden.row(row).tolist()) for row in range(len(golden))}
    assert len(texts & set(MOLECULES)) >= 5


def test_the_card_tells_facts_metrics_the_author_s_text_and_the_error(checkpoint: Path, destination: Path) -> None:
    manifest = write_bundle(
        load_encoder(checkpoint), destination, card="## Intended use\n\nTests.", metrics={"a|b": 2.0}
    ).manifest
    card = (destination / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# small, version 1\n\nbigru encoder of smiles sequences\n\n## Intended use\n\nTests.\n")
    for part in (
        "birnn train molecules.smi",
        "| validation_total | 1.5 |",
        "| a\\|b | 2 |",
        f"{manifest.verification.max_error_pooled:.1e} (pooled)",
    ):
        assert part in card


def test_an_encoder_that_is_hard_on_float32_is_exported_with_its_errors_and_served(
    tmp_path: Path, destination: Path
) -> None:
    encoder = write_checkpoint(tmp_path / "run", architecture="bilstm", layers=2, hidden_size=32)
    write_weights(tmp_path / "run", make_stiff(encoder))
    bundle = write_bundle(load_encoder(tmp_path / "run"), destination)
    own = bundle.manifest.verification.max_error_float32
    assert own is not None
    assert 1e-5 < own < bundle.manifest.tolerance <= 1e-3
    card = (destination / "README.md").read_text(encoding="utf-8")
    assert f"PyTorch itself differs by up to {own:.1e} in float32" in card
    assert load_engine(bundle, "cpu").report.pooled <= bundle.manifest.tolerance
    assert load_engine(bundle, "cpu", engine="onnxruntime").report.pooled <= bundle.manifest.tolerance
    with pytest.raises(VerificationError, match=r"tolerance 1e-05; .* lets rounding errors grow"):
        write_bundle(load_encoder(tmp_path / "run"), destination, tolerance=1e-5, force=True)


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_bundle(load_encoder(checkpoint), tmp_path / folder / "small" / "1", sequences=MOLECULES)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_everybody_may_read_a_bundle(checkpoint: Path, destination: Path) -> None:
    before = os.umask(0o022)
    try:
        write_bundle(load_encoder(checkpoint), destination)
    finally:
        os.umask(before)
    assert destination.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in destination.iterdir()} == {0o644}


def test_name_and_version_come_from_the_path_unless_given(checkpoint: Path, tmp_path: Path) -> None:
    manifest = write_bundle(load_encoder(checkpoint), tmp_path / "models" / "my.small-1_x" / "12").manifest
    assert (manifest.name, manifest.version) == ("my.small-1_x", 12)
    manifest = write_bundle(load_encoder(checkpoint), tmp_path / "Any Folder", name="other", version=3).manifest
    assert (manifest.name, manifest.version) == ("other", 3)


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("Small/1", {}, "'Small' cannot be the name of an encoder"),
        ("-small/1", {}, "'-small' cannot be the name"),
        ("small/1", {"name": "a/b"}, "'a/b' cannot be the name"),
        ("small/1", {"name": ""}, "'' cannot be the name"),
        ("small/v1", {}, "'v1' cannot be a version"),
        ("small/0", {}, "'0' cannot be a version"),
        ("small/01", {}, "'01' cannot be a version"),
        ("small/1", {"version": 0}, "the version must be from 1 to 999999999, not 0"),
        ("small/1", {"tolerance": 0.0}, "the tolerance must be above 0"),
        ("small/1", {"tolerance": float("nan")}, "the tolerance must be above 0"),
    ],
)
def test_names_versions_and_tolerances_that_cannot_be_are_refused(
    checkpoint: Path, tmp_path: Path, place: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        write_bundle(load_encoder(checkpoint), tmp_path / "models" / place, **options)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("file", FILES)
def test_a_tampered_file_is_refused_by_name(checkpoint: Path, destination: Path, file: str) -> None:
    write_bundle(load_encoder(checkpoint), destination)
    content = bytearray((destination / file).read_bytes())
    content[len(content) // 2] ^= 1
    (destination / file).write_bytes(content)
    with pytest.raises(BundleError, match=f"{file} was changed or cut short"):
        Bundle.load(destination)


def refused_for_a_damaged_checkpoint(checkpoint: Path, destination: Path) -> None:
    weights = checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        write_bundle(load_encoder(checkpoint), destination)


def refused_for_nan(checkpoint: Path, destination: Path) -> None:
    weights = load_file(checkpoint / "weights.safetensors")
    weights["core.rnn.weight_hh_l0"][1, 1] = torch.nan
    save_file(weights, checkpoint / "weights.safetensors")
    with pytest.raises((CheckpointError, WeightsError), match=r"core\.rnn\.weight_hh_l0 .*not finite"):
        write_bundle(load_encoder(checkpoint), destination)


def refused_for_its_error(checkpoint: Path, destination: Path) -> None:
    with pytest.raises(VerificationError, match="disagrees with PyTorch"):
        write_bundle(load_encoder(checkpoint), destination, tolerance=1e-12)


def refused_for_facts_that_are_none(checkpoint: Path, destination: Path) -> None:
    training = json.loads((checkpoint / "training.json").read_text())
    (checkpoint / "training.json").write_text(json.dumps({**training, "sequences": "many"}))
    with pytest.raises(CheckpointError, match=r"training\.json: does not describe a training"):
        write_bundle(load_encoder(checkpoint), destination)


REFUSALS = [
    refused_for_a_damaged_checkpoint,
    refused_for_nan,
    refused_for_its_error,
    refused_for_facts_that_are_none,
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_leaves_nothing_behind(checkpoint: Path, destination: Path, tmp_path: Path, refusal: Any) -> None:
    refusal(checkpoint, destination)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_an_interrupted_export_leaves_nothing_behind(
    checkpoint: Path, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> Bundle:
        assert (path / MANIFEST_FILE).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(Bundle, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(load_encoder(checkpoint), destination)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_bundle_that_exists_is_kept_unless_replacing_is_asked_for(checkpoint: Path, destination: Path) -> None:
    write_bundle(load_encoder(checkpoint), destination)
    before = contents(destination.parent)
    with pytest.raises(ExportError, match="exists; export to a new version, or add --force"):
        write_bundle(load_encoder(checkpoint), destination, description="New.")
    assert contents(destination.parent) == before
    assert (
        write_bundle(load_encoder(checkpoint), destination, description="New.", force=True).manifest.description
        == "New."
    )
    assert [path.name for path in destination.parent.iterdir()] == ["1"]


def test_a_refused_replacement_keeps_the_bundle_that_stood_there(checkpoint: Path, destination: Path) -> None:
    write_bundle(load_encoder(checkpoint), destination)
    before = contents(destination.parent)
    with pytest.raises(VerificationError):
        write_bundle(load_encoder(checkpoint), destination, tolerance=1e-12, force=True)
    assert contents(destination.parent) == before


@pytest.mark.parametrize("kind", ["file", "link", "other folder"])
def test_only_a_bundle_can_be_replaced(checkpoint: Path, destination: Path, tmp_path: Path, kind: str) -> None:
    destination.parent.mkdir(parents=True)
    if kind == "file":
        destination.write_text("mine")
    elif kind == "link":
        (tmp_path / "target").mkdir()
        destination.symlink_to(tmp_path / "target")
    else:
        destination.mkdir()
        (destination / "thesis.tex").write_text("mine")
    before = contents(destination.parent)
    with pytest.raises(ExportError, match=r"is no folder|something else than a bundle"):
        write_bundle(load_encoder(checkpoint), destination, force=True)
    assert contents(destination.parent) == before
