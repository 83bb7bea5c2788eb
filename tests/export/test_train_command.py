"""`birnn train` as a user runs it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from birnn_export.train_command import train
from birnn_export.training.checkpoint import load_encoder, read_heads

from .training.conftest import MOLECULES, TEXT

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = [
    *("--embedding-size", "6", "--hidden-size", "8", "--minimum-count", "1", "--validation-share", "0.2"),
    *("--batch-tokens", "100", "--evaluate-every", "5", "--epochs", "2", "--workers", "1", "--device", "cpu"),
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "molecules.smi"
    file.write_text("\n".join(MOLECULES))
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


def facts(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return values


@pytest.mark.parametrize("architecture", ["bigru", "bilstm", "birnn", "birnn-scratch"])
def test_every_architecture_trains_to_a_loadable_checkpoint(
    tmp_path: Path, corpus: Path, drawn: None, architecture: str
) -> None:
    out = tmp_path / "run"
    result = run(corpus, "-o", out, *SMALL, "--architecture", architecture, "--pooling", "mean+max", "--layers", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    assert "all epochs or steps done" in result.stderr
    loaded = load_encoder(out)
    assert loaded.config.architecture == architecture
    assert loaded.config.dimension == 32
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_facts_for_a_model_card_hold_no_paths(tmp_path: Path, corpus: Path) -> None:
    exclude = tmp_path / "quality.csv"
    exclude.write_text("smiles\nOCC\n")
    out = tmp_path / "run"
    result = run(corpus, "-o", out, *SMALL, "--exclude", f"{exclude}:smiles", "--objective", "masked,descriptors:2")
    assert result.exit_code == 0, result.output
    recorded = facts(out)
    assert recorded["data"] == ["molecules.smi"]
    assert recorded["sequences"] == len(MOLECULES) - 1
    assert recorded["left_out"] == {"excluded": 1}
    assert recorded["recipe"].startswith("birnn train molecules.smi --embedding-size 6")
    assert "--exclude quality.csv:smiles" in recorded["recipe"]
    assert str(tmp_path) not in recorded["recipe"]
    assert recorded["metrics"]["validation_descriptors"] > 0


def test_text_trains_from_a_table_column_by_default_objectives(tmp_path: Path) -> None:
    file = tmp_path / "text.tsv"
    file.write_text("".join(f"{number}\t{sentence}\n" for number, sentence in enumerate(TEXT)))
    out = tmp_path / "run"
    result = run(f"{file}:2", "-o", out, *SMALL, "--tokenizer", "text", "--vocab-size", 300, "--pooling", "mean")
    assert result.exit_code == 0, result.output
    assert facts(out)["objective"] == "masked,tokens"
    loaded = load_encoder(out)
    assert (
        loaded.tokenizer.decode(loaded.tokenizer.tokenize([b"A man sees."], 50).batch.row(0).tolist()) == "A man sees."
    )


def test_pairs_train_a_bag_in_lower_case_and_are_named_in_the_recipe(tmp_path: Path) -> None:
    pairs = "".join(
        f"{number % 6}\t{one}\t{other}\n" for number, (one, other) in enumerate(zip(TEXT, TEXT[::-1], strict=True))
    )
    file = tmp_path / "pairs.tsv"
    file.write_text(pairs)
    out = tmp_path / "run"
    options = ["--tokenizer", "text", "--lowercase", "--vocab-size", 300, "--pooling", "mean", "--start-as-bag"]
    scored = ["--objective", "similarity", "--pairs", f"{file}:1:2:3"]
    result = run(f"{file}:2", "-o", out, *SMALL, *options, *scored)
    assert result.exit_code == 0, result.output
    recorded = facts(out)
    assert recorded["data"] == ["pairs.tsv:2", "pairs.tsv:1:2:3"]
    for words in ("--pairs pairs.tsv:1:2:3", "--lowercase", "--start-as-bag", "--objective similarity"):
        assert words in recorded["recipe"]
    assert str(tmp_path) not in recorded["recipe"]
    assert recorded["metrics"]["validation_similarity"] > 0
    tokenizer = load_encoder(out).tokenizer
    assert tokenizer.tokenize([b"A Man"], 50).batch.keys() == tokenizer.tokenize([b"a man"], 50).batch.keys()
    assert run("-o", out, "--resume", "--max-steps", 1).exit_code == 0
    file.write_text(pairs.replace("5\t", "4\t"))
    assert "the corpus is not the one" in run("-o", out, "--resume").output


def test_signal_saves_and_resume_ends_like_an_uninterrupted_run(tmp_path: Path, corpus: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*SMALL, "--epochs", "25", "--patience", "1000"]
    assert run(corpus, "-o", whole, *options).exit_code == 0

    command = [sys.executable, "-c", "from birnn_export.train_command import train; train()"]
    process = subprocess.Popen([*command, str(corpus), "-o", str(parts), *options], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (parts / "metrics.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert f"birnn train -o {parts} --resume" in errors

    resumed = run("-o", parts, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert (parts / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    figures = [{**facts(folder)["metrics"], "minutes": 0} for folder in (parts, whole)]
    assert figures[0] == figures[1]


def test_resume_refuses_changed_options_and_a_changed_corpus(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "run"
    assert run(corpus, "-o", out, *SMALL).exit_code == 0
    changed = run("-o", out, "--resume", "--learning-rate", "1")
    assert changed.exit_code == 2
    assert "learning-rate was 0.002 when this run began" in changed.stderr
    corpus.write_text("\n".join(MOLECULES[5:]))
    other = run("-o", out, "--resume")
    assert other.exit_code == 1
    assert "the corpus is not the one" in other.stderr


def test_run_from_before_an_option_existed_goes_on_with_its_default(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "run"
    assert run(corpus, "-o", out, *SMALL, "--max-steps", 3).exit_code == 0
    older = facts(out)
    del older["options"]["spellings"], older["options"]["schedule"]
    (out / "training.json").write_text(json.dumps(older))
    refused = run("-o", out, "--resume", "--spellings", 2)
    assert "spellings was 0 when this run began" in refused.stderr
    further = run("-o", out, "--resume", "--max-steps", 6)
    assert further.exit_code == 0, further.output
    assert "Finished at step 6" in further.stderr
    assert facts(out)["options"]["schedule"] == "cosine"


def test_run_starts_from_another_and_takes_embeddings_by_token(tmp_path: Path, corpus: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(corpus, "-o", first, *SMALL).exit_code == 0
    further = tmp_path / "further.smi"
    # Selenium sorts between the other tokens, so that most of them have other ids here.
    further.write_text("\n".join([*MOLECULES, *("C" * count + "[Se]C" for count in range(1, 9))]))
    options = [*SMALL, "--pooling", "mean", "--max-steps", 1, "--learning-rate", 1e-30, "--start-from", first]
    result = run(further, "-o", second, *options)
    assert result.exit_code == 0, result.output
    before, after = load_encoder(first), load_encoder(second)
    new = after.tokenizer.vocab_size - before.tokenizer.vocab_size
    assert new > 0
    assert f"knew {before.tokenizer.vocab_size} of the {after.tokenizer.vocab_size} tokens" in result.stderr
    assert "--start-from first" in facts(second)["recipe"]
    ids = [loaded.tokenizer.tokenize([b"CC(=O)Oc1ccccc1C(=O)O"], 50).batch.ids for loaded in (before, after)]
    outputs = [
        loaded.encoder.tokens(torch.from_numpy(one).long()[None], torch.tensor([len(one)]))
        for loaded, one in zip((before, after), ids, strict=True)
    ]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=0)
    other = run(further, "-o", tmp_path / "third", *options, "--hidden-size", 9)
    assert other.exit_code == 1
    assert "cannot start from" in other.stderr


def test_heads_go_along_with_the_layer_that_they_stood_on(tmp_path: Path, corpus: Path) -> None:
    first, second, deeper = tmp_path / "first", tmp_path / "second", tmp_path / "deeper"
    assert run(corpus, "-o", first, *SMALL, "--objective", "masked,descriptors").exit_code == 0
    options = [*SMALL, "--max-steps", 1, "--learning-rate", 1e-30, "--start-from", first]
    more = run(corpus, "-o", second, *options, "--objective", "descriptors,groups")
    assert more.exit_code == 0, more.output
    assert "heads taken along: descriptors\n" in more.stderr
    heads = [read_heads(folder) for folder in (first, second)]
    assert torch.equal(*(head["descriptors.head.weight"] for head in heads))
    further = tmp_path / "further.smi"
    further.write_text("\n".join(MOLECULES[1:]))
    for other in (
        run(further, "-o", tmp_path / "f", *options),
        run(corpus, "-o", tmp_path / "p", *options, "--pooling", "max"),
    ):
        assert other.exit_code == 0, other.output
        assert "heads taken along: none\n" in other.stderr
    other = run(corpus, "-o", deeper, *options, "--layers", 2, "--objective", "descriptors")
    assert other.exit_code == 0, other.output
    assert "heads taken along: none\n" in other.stderr
    below = [load_encoder(folder).encoder.state_dict()["core.rnn.weight_hh_l0"] for folder in (first, deeper)]
    assert torch.equal(*below)
    shallower = run(corpus, "-o", tmp_path / "third", *SMALL, "--start-from", deeper)
    assert shallower.exit_code == 1
    assert "cannot start from" in shallower.stderr


def test_existing_run_is_not_overwritten(tmp_path: Path, corpus: Path) -> None:
    assert run(corpus, "-o", tmp_path / "run", *SMALL).exit_code == 0
    again = run(corpus, "-o", tmp_path / "run", *SMALL)
    assert again.exit_code == 2
    assert "already holds a run: add --resume" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "OUT"], "give at least one CORPUS file"),
        (["-o", "OUT", "--resume"], "holds no checkpoint to go on from"),
        (["none.smi", "-o", "OUT"], "none.smi: No such file"),
        (["CORPUS:smiles", "-o", "OUT"], "has no columns"),
        (["CORPUS", "-o", "OUT", "--objective", "mask"], "unknown objective 'mask'"),
        (["CORPUS", "-o", "OUT", "--tokenizer", "text", "--objective", "descriptors"], "needs molecules"),
        (["CORPUS", "-o", "OUT", "--objective", "similarity"], "need each other"),
        (["CORPUS", "-o", "OUT", "--pairs", "a.tsv:1:2:3"], "need each other"),
        (["CORPUS", "-o", "OUT", "--start-as-bag", "--architecture", "bilstm"], "only a bigru"),
        (
            ["CORPUS", "-o", "OUT", "--hidden-size", "0", "--minimum-count", "1", "--validation-share", "0.2"],
            "hidden_size must",
        ),
        (["CORPUS", "-o", "OUT", "--architecture", "gru"], "Invalid value for '--architecture'"),
        (["CORPUS", "-o", "OUT", "--validation-share", "2"], "validation share must lie"),
    ],
)
def test_user_errors_are_one_clear_message(tmp_path: Path, corpus: Path, arguments: list[str], message: str) -> None:
    places = {"OUT": str(tmp_path / "out"), "CORPUS": str(corpus)}
    filled = [argument.replace("CORPUS", places["CORPUS"]).replace("OUT", places["OUT"]) for argument in arguments]
    result = run(*filled, "--workers", 1)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dropout", "1"], "dropout must be at least 0"),
        (["--precision", "fp16", "--device", "cpu"], "fp16 needs CUDA"),
    ],
)
def test_what_cannot_work_is_refused_before_any_descriptor(
    tmp_path: Path, corpus: Path, arguments: list[str], message: str
) -> None:
    result = run(corpus, "-o", tmp_path / "out", *arguments)
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_output_that_is_no_folder_is_one_clear_message(corpus: Path) -> None:
    result = run(corpus, "-o", corpus, *SMALL)
    assert result.exit_code == 1
    assert f"{corpus}: cannot be written" in result.stderr
    assert corpus.read_text().split() == MOLECULES
