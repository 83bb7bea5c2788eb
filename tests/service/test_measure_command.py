"""`birnn models measure`: a bundle of before is measured, and can then be served in what it allows."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import birnn_export
from birnn_bundle.bundle import Bundle
from birnn_bundle.precision_card import HEADING
from birnn_native.library import NativeUnavailableError, precisions
from birnn_service.commands import models
from birnn_service.engine.loading import load_engine
from birnn_service.errors import StartupError
from tests.service.engine.bundles import small_bundle

MODELS = Path(__file__).parents[2] / "models"
LEGACY = {"tolerance": 0.05, "min_cosine": 0.9999, "error_fp16": 0.01, "error_bf16": 0.01}

try:
    REDUCED_HERE: list[Any] = [precision for precision in precisions() if precision != "fp32"]
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)
if not REDUCED_HERE:
    pytest.skip("the kernels compute in float32 only on this processor", allow_module_level=True)


def edit(bundle: Path, **changes: Any) -> None:
    """Change what the manifest says of reduced precisions; None takes a key away."""
    manifest = bundle / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8")) | changes
    absent = {key for key, value in changes.items() if value is None}
    manifest.write_text(json.dumps({key: value for key, value in content.items() if key not in absent}))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle as it was written before reduced precisions had records."""
    shutil.copytree(MODELS / "smiles-small", tmp_path / "smiles-small")
    edit(tmp_path / "smiles-small" / "1", precisions=None, reduced_precision=None)
    return tmp_path / "smiles-small" / "1"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(models, [str(argument) for argument in arguments])


def measured(bundle: Path, *arguments: str | Path) -> str:
    result = run("measure", bundle, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_was_not_measured_is_refused_with_what_to_run_and_served_once_it_was(bundle: Path) -> None:
    for precision in REDUCED_HERE:
        with pytest.raises(StartupError, match=r"was not measured: measure it with `birnn models measure BUNDLE`"):
            load_engine(Bundle.load(bundle), "cpu", precision=precision)
    assert load_engine(Bundle.load(bundle), "cpu", precision="auto").engine.info.precision == "float32"
    measured(bundle)
    for precision in REDUCED_HERE:
        proven = load_engine(Bundle.load(bundle), "cpu", precision=precision)
        assert proven.engine.info.precision == {"bf16": "bfloat16", "int8": "int8"}[precision]
    assert load_engine(Bundle.load(bundle), "cpu").engine.info.precision == "float32"


def test_further_sequences_and_a_quality_set_are_recorded_and_told_in_the_card(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    rows = [f"{'C' * (1 + number % 9)}O,{number % 9}" for number in range(60)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["smiles,y", *rows]) + "\n")
    output = measured(bundle, "--sequences", f"{table}:smiles", "--quality", f"{table}:smiles:y")
    loaded = Bundle.load(bundle)
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert card.count(HEADING) == 1
    for precision in REDUCED_HERE:
        record = loaded.manifest.records[precision]
        assert record.others is not None
        assert record.quality is not None
        assert (record.others.sequences, record.quality.sequences) == (60, 60)
        assert f"{precision}: least cosine" in output
        assert f"in {precision}" in card.partition(HEADING)[2]
    # What is measured anew without them no longer claims them.
    measured(bundle)
    assert Bundle.load(bundle).manifest.records[REDUCED_HERE[0]].quality is None
    assert (bundle / "README.md").read_text(encoding="utf-8").count(HEADING) == 1


def test_what_was_recorded_of_other_machines_and_allowed_by_the_author_stays(bundle: Path) -> None:
    edit(bundle, precisions=None, reduced_precision=LEGACY | {"min_cosine": 0.995})
    assert "fp16: not measured here" in measured(bundle, "--min-cosine", "fp16=0.998")
    records = Bundle.load(bundle).manifest.records
    assert (records["fp16"].tolerance, records["fp16"].min_cosine) == (0.05, 0.998)
    if "bf16" in REDUCED_HERE:
        assert records["bf16"].min_cosine == 0.995


def test_what_is_further_off_than_its_author_allows_is_recorded_and_not_served(bundle: Path) -> None:
    precision = REDUCED_HERE[0]
    assert "not allowed: least cosine" in measured(bundle, "--min-cosine", f"{precision}=0.9999999")
    with pytest.raises(StartupError, match=r"does not allow .*: least cosine .* on .*golden sequences"):
        load_engine(Bundle.load(bundle), "cpu", precision=precision)


def test_a_signature_does_not_survive_and_that_is_said(bundle: Path, tmp_path: Path) -> None:
    assert run("keygen", tmp_path / "key").exit_code == 0
    assert run("sign", bundle, "--key", tmp_path / "key").exit_code == 0
    assert "its signature is removed" in measured(bundle)
    trusting: list[str | Path] = ["verify", bundle, "--trust", tmp_path / "key.pub"]
    assert "is not signed" in run(*trusting).output
    assert run("sign", bundle, "--key", tmp_path / "key").exit_code == 0
    assert run(*trusting).exit_code == 0


def test_a_damaged_bundle_is_not_touched(bundle: Path) -> None:
    weights = bundle / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    result = run("measure", bundle)
    assert result.exit_code == 1
    assert "weights.bin was changed" in result.output
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_features_have_no_texts_to_measure_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.GRU(3, 5, bidirectional=True)
    bundle = birnn_export.export_encoder(module, None, tmp_path / "m" / "1", pooling="mean", max_length=20).path
    (tmp_path / "t.smi").write_text("CO\n")
    measured(bundle)
    for option in (["--sequences", f"{tmp_path}/t.smi"], ["--quality", "t.csv:smiles:y"]):
        assert "reads features" in run("measure", bundle, *option).output


def test_a_cell_without_kernels_says_so(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path, nonlinearity="relu").path
    result = run("measure", bundle)
    assert result.exit_code == 1
    assert "the native kernels cannot run it" in result.output


def test_verify_measures_again_and_compares(bundle: Path) -> None:
    measured(bundle)
    output = run("verify", bundle).output
    for precision in REDUCED_HERE:
        name = {"bf16": "bfloat16", "int8": "int8"}[precision]
        assert any(f", {name}, agrees" in line and "are recorded, by native" in line for line in output.splitlines())
    precision = REDUCED_HERE[0]
    content = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["precisions"]
    content[precision]["golden"] |= {"least_cosine": 0.99999999, "least_token_cosine": 0.99999999}
    edit(bundle, precisions=content)
    for arguments in ([], ["--precision", precision]):
        result = run("verify", bundle, *arguments)
        assert result.exit_code == 1
        assert "least cosine 1.0000000 are recorded, by native" in result.output
        assert "measure it anew" in result.output
    # Float32 is as it was.
    assert run("verify", bundle, "--engine", "native").exit_code == 0


def test_verify_says_what_it_cannot_check_here(bundle: Path) -> None:
    edit(bundle, reduced_precision=LEGACY)
    output = run("verify", bundle, "--device", "cpu").output
    assert "fp16 is allowed, and was not checked: no engine on this machine computes in it" in output
