import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import nn

from birnn.cli.main import main
from birnn_bundle.bundle import Bundle
from birnn_export.training.checkpoint import write_weights
from tests.export.checkpoints.foreign_modules import TOKENS, Model
from tests.export.small_encoders import MOLECULES, write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "models" / "small" / "1"


def export(*words: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


def refused(result: Result, output: Path) -> str:
    """The message of an export that was refused as the user's error and left nothing behind."""
    assert result.exit_code in (1, 2)
    # Anything else would reach the user as a traceback.
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert not output.exists()
    return result.stderr


def test_it_writes_a_bundle_and_says_what_was_verified_with_which_error(checkpoint: Path, output: Path) -> None:
    result = export(checkpoint, "-o", output)
    assert result.exit_code == 0, result.stderr
    found = Bundle.load(output).manifest.verification
    assert "small version 1: bigru, 1 layer, pooling final, 8 dimensions" in result.stdout
    assert f"{found.cases} runs of onnxruntime" in result.stdout
    assert (
        f"{found.max_error_pooled:.2e} pooled, {found.max_error_tokens:.2e} per token (tolerance 1e-05)"
        in result.stdout
    )


def test_every_option_reaches_the_bundle(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("Handle with care.")
    (tmp_path / "some.smi").write_text("\n".join(MOLECULES))
    output = tmp_path / "out"
    options = ["--name", "other", "--version", 7, "--description", "A test.", "--card", tmp_path / "card.md"]
    options += ["--tolerance", "2e-5", "--metric", "r2=0.71", "--metric", "mae=-1e-3"]
    result = export(checkpoint, "-o", output, "--sequences", tmp_path / "some.smi", *options)
    assert result.exit_code == 0, result.stderr
    bundle = Bundle.load(output)
    assert (bundle.label, bundle.manifest.description, bundle.manifest.tolerance) == ("other/7", "A test.", 2e-5)
    assert bundle.manifest.training.metrics == {"validation_total": 1.5, "r2": 0.71, "mae": -1e-3}
    assert "Handle with care." in (output / "README.md").read_text()
    texts = [bundle.tokenizer.decode(bundle.golden.batch.row(row).tolist()) for row in range(len(bundle.golden.batch))]
    assert set(texts) & set(MOLECULES)


def test_reduced_precisions_are_measured_with_what_is_given(checkpoint: Path, output: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    rows = [f"{molecule},{number % 7}" for number, molecule in enumerate(MOLECULES * 8)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["smiles,y", *rows]) + "\n")
    options = ["--sequences", f"{table}:smiles", "--quality", f"{table}:smiles:y", "--min-cosine", "fp16=0.97"]
    result = export(checkpoint, "-o", output, *options)
    assert result.exit_code == 0, result.stderr
    records = Bundle.load(output).manifest.precisions
    # Of the kernels' precisions; fp16 is simulated on the golden sequences.
    assert records["fp16"].min_cosine == 0.97
    assert records["fp16"].others is None
    for name, record in records.items():
        assert f"{name}: least cosine" in result.stdout
        if record.engine.startswith("native"):
            assert record.others is not None
            assert record.quality is not None
            assert (record.others.sequences, record.quality.sequences) == (64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quality", "missing.csv:smiles:y"], "No such file"),
        (["--quality", "missing.csv"], "not FILE:COLUMN:TARGET"),
        (["--min-cosine", "fp8=0.99"], "is not PRECISION=COSINE"),
        (["--min-cosine", "int8=0.99", "--min-cosine", "int8=0.98"], "each once"),
        (["--min-cosine", "int8=nan"], "a number from 0.9"),
    ],
)
def test_what_cannot_be_measured_with_is_refused_before_anything_is_written(
    checkpoint: Path, output: Path, options: list[str], message: str
) -> None:
    pytest.importorskip("sklearn")
    assert message in refused(export(checkpoint, "-o", output, *options), output)


def test_an_existing_bundle_is_replaced_with_force_only(checkpoint: Path, output: Path) -> None:
    assert export(checkpoint, "-o", output).exit_code == 0
    result = export(checkpoint, "-o", output)
    assert result.exit_code == 1
    assert "add --force" in result.stderr
    assert export(checkpoint, "-o", output, "--force").exit_code == 0


def test_an_encoder_that_float32_cannot_hold_is_refused(output: Path, tmp_path: Path) -> None:
    encoder = write_checkpoint(tmp_path / "run", architecture="birnn", nonlinearity="relu")
    with torch.no_grad():
        for name, parameter in encoder.core.named_parameters():
            if "weight_hh" in name:
                parameter.copy_(30 * torch.eye(len(parameter)))
    write_weights(tmp_path / "run", encoder)
    message = refused(export(tmp_path / "run", "-o", output, "--max-length", 64), output)
    assert "This recurrence lets rounding errors grow" in message
    assert "--tolerance" not in message


def test_a_missing_checkpoint_is_named(output: Path, tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: no such file or folder" in refused(export(tmp_path / "none", "-o", output), output)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "weights.safetensors", "training.json"])
def test_a_missing_file_is_named(checkpoint: Path, output: Path, file: str) -> None:
    (checkpoint / file).unlink()
    assert f"{file}: is missing" in refused(export(checkpoint, "-o", output), output)


def test_truncated_weights_are_refused(checkpoint: Path, output: Path) -> None:
    weights = checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "weights.safetensors: damaged or cut off" in refused(export(checkpoint, "-o", output), output)


def test_weights_of_a_wrong_shape_are_refused_with_both_shapes(checkpoint: Path, output: Path) -> None:
    weights = load_file(checkpoint / "weights.safetensors")
    weights["core.rnn.weight_ih_l0"] = torch.zeros(12, 9)
    save_file(weights, checkpoint / "weights.safetensors")
    message = refused(export(checkpoint, "-o", output), output)
    assert "core.rnn.weight_ih_l0" in message
    assert "[12, 9]" in message
    assert "[12, 5]" in message


def test_nan_weights_are_refused_with_the_tensor_s_name(checkpoint: Path, output: Path) -> None:
    weights = load_file(checkpoint / "weights.safetensors")
    weights["embedding.weight"][4, 0] = torch.nan
    save_file(weights, checkpoint / "weights.safetensors")
    assert "embedding.weight" in refused(export(checkpoint, "-o", output), output)


def test_a_disagreement_is_told_with_its_place(checkpoint: Path, output: Path) -> None:
    message = refused(export(checkpoint, "-o", output, "--tolerance", "1e-12"), output)
    assert "no bundle was written: pooled.onnx: disagrees with PyTorch in float64: B=1, T=1" in message


@pytest.mark.parametrize("metric", ["r2", "=1", "r2=good", "r2=nan", "r2=inf", ""])
def test_a_metric_that_is_no_number_is_refused(checkpoint: Path, output: Path, metric: str) -> None:
    assert f"{metric!r} is not KEY=VALUE" in refused(export(checkpoint, "-o", output, "--metric", metric), output)


@pytest.mark.parametrize("tolerance", ["0", "-1", "nan", "1"])
def test_a_tolerance_that_cannot_be_is_refused(checkpoint: Path, output: Path, tolerance: str) -> None:
    assert "tolerance" in refused(export(checkpoint, "-o", output, "--tolerance", tolerance), output)


def test_a_card_that_is_no_text_is_refused(checkpoint: Path, output: Path, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in refused(export(checkpoint, "-o", output, "--card", tmp_path / "card.md"), output)


def test_a_file_of_sequences_that_does_not_exist_is_refused(checkpoint: Path, output: Path, tmp_path: Path) -> None:
    message = refused(export(checkpoint, "-o", output, "--sequences", tmp_path / "none.smi"), output)
    assert "none.smi" in message


def test_a_place_that_cannot_be_written_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    output = tmp_path / "models" / "small" / "1"
    assert "cannot write" in refused(export(checkpoint, "-o", output), output)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(Model(torch.nn.GRU, num_layers=2).state_dict(), tmp_path / "mine.pt")
    (tmp_path / "vocab.json").write_text(json.dumps(TOKENS))
    return tmp_path / "mine.pt"


def test_a_file_of_weights_becomes_a_bundle_with_notes_of_what_was_taken(weights: Path, output: Path) -> None:
    vocabulary = ["--tokenizer", weights.with_name("vocab.json"), "--split", "smiles"]
    result = export(weights, "-o", output, "--pooling", "mean", "--max-length", 30, *vocabulary)
    assert result.exit_code == 0, result.stderr
    assert "encoder.rnn: bidirectional GRU, 2 layers, 5 -> 2 x 3" in result.stderr
    assert "not used: head.bias, head.weight" in result.stderr
    bundle = Bundle.load(output)
    assert (bundle.manifest.architecture, bundle.manifest.layers, bundle.manifest.pooling) == ("bigru", 2, "mean")
    assert bundle.tokenizer.tokenize(["CN", "C@"], 9).unknown.tolist() == [0, 1]
    assert "weights from mine.pt: encoder.rnn" in (output / "README.md").read_text()


def test_what_weights_do_not_say_is_asked_for_by_option(weights: Path, output: Path) -> None:
    assert "add --pooling" in refused(export(weights, "-o", output), output)
    assert "add --tokenizer FILE" in refused(export(weights, "-o", output, "--pooling", "max"), output)
    vocabulary = ["--pooling", "max", "--tokenizer", weights.with_name("vocab.json")]
    assert "add --split" in refused(export(weights, "-o", output, *vocabulary), output)
    wrong = [*vocabulary, "--split", "smiles", "--prefix", "decoder"]
    assert "no recurrence is at --prefix 'decoder'. Found: encoder.rnn" in refused(
        export(weights, "-o", output, *wrong), output
    )


def test_options_for_weights_are_refused_where_they_say_nothing(checkpoint: Path, weights: Path, output: Path) -> None:
    message = refused(export(checkpoint, "-o", output, "--pooling", "mean", "--first-id", "1"), output)
    assert "--pooling, --first-id: for files of weights" in message
    assert "give it with --tokenizer" in refused(export(weights, "-o", output, "--split", "smiles"), output)


def test_two_modules_of_one_direction_are_named_or_tell_it_by_their_names(output: Path, tmp_path: Path) -> None:
    for file, names in (("told.pt", ("fwd", "bwd")), ("asked.pt", ("one", "two"))):
        torch.save(nn.ModuleDict({name: nn.GRU(4, 3) for name in names}).state_dict(), tmp_path / file)
    features = ["-o", output, "--pooling", "mean", "--max-length", 20]
    assert export(tmp_path / "told.pt", *features).exit_code == 0
    message = export(tmp_path / "asked.pt", *features, "--force").stderr
    assert "say which is which with --forward NAME --backward NAME" in message
    result = export(tmp_path / "asked.pt", *features, "--force", "--forward", "two", "--backward", "one")
    assert "two and one: bidirectional GRU, 1 layer, 4 -> 2 x 3" in result.stderr
    assert result.exit_code == 0
    for words in (["--forward", "two"], ["--forward", "two", "--backward", "one", "--prefix", "one"]):
        result = export(tmp_path / "asked.pt", *features, "--force", *words)
        assert "give as many of one as of the other, and no --prefix" in result.stderr.replace("\n", " ")
