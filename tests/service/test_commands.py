import json
import shutil
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from birnn_service.commands import models, serve

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(MODELS, tmp_path / "models")
    return tmp_path / "models"


def test_verify_says_what_was_checked_and_how_far_off_it_is() -> None:
    result = CliRunner().invoke(models, ["verify", str(MODELS / "smiles" / "1")])
    assert result.exit_code == 0, result.output
    assert "smiles/1: good" in result.output
    assert "on cpu" in result.output or "on cuda:0" in result.output


def test_verify_names_the_file_that_was_tampered_with(copy: Path) -> None:
    weights = copy / "smiles" / "1" / "weights.bin"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    result = CliRunner().invoke(models, ["verify", str(weights.parent)])
    assert result.exit_code == 1
    assert "weights.bin was changed" in result.output


def test_verify_refuses_a_file_that_nobody_listed_and_a_link_out_of_the_bundle(copy: Path) -> None:
    bundle = copy / "smiles" / "1"
    (bundle / "extra.bin").write_bytes(b"x")
    assert "extra.bin is not listed" in CliRunner().invoke(models, ["verify", str(bundle)]).output
    (bundle / "extra.bin").unlink()
    outside = copy / "weights.bin"
    (bundle / "weights.bin").rename(outside)
    (bundle / "weights.bin").symlink_to(outside)
    assert "outside the bundle" in CliRunner().invoke(models, ["verify", str(bundle)]).output


def test_a_manifest_that_points_out_of_the_bundle_is_refused(copy: Path) -> None:
    manifest = copy / "smiles" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"golden.safetensors"', '"../../golden.safetensors"'))
    output = CliRunner().invoke(models, ["verify", str(manifest.parent)]).output
    assert "not a path inside the bundle" in output


def test_verify_without_a_manifest_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(models, ["verify", str(tmp_path)])
    assert result.exit_code == 1
    assert "manifest.json is missing" in result.output


def test_list_shows_good_and_broken_bundles(copy: Path) -> None:
    (copy / "text" / "1" / "tokenizer.json").unlink()
    result = CliRunner().invoke(models, ["list", str(copy)])
    assert result.exit_code == 0
    assert "smiles/1\tbigru" in result.output
    assert "text/1\tbroken: " in result.output
    assert "tokenizer.json is missing" in result.output


def test_list_as_json_says_the_same_to_programs(copy: Path) -> None:
    (copy / "text" / "1" / "tokenizer.json").unlink()
    result = CliRunner().invoke(models, ["list", str(copy), "--json"])
    assert result.exit_code == 0
    bundles = {(bundle["name"], bundle["version"]): bundle for bundle in json.loads(result.output)}
    assert len(bundles) == 5
    small = bundles["smiles-small", "1"]
    assert small["error"] is None
    assert (small["dimension"], small["tokenizer"], small["pooling"]) == (512, "smiles", "mean+max")
    assert small["path"] == str(copy / "smiles-small" / "1")
    broken = bundles["text", "1"]
    assert "tokenizer.json is missing" in broken["error"]
    assert "dimension" not in broken


def test_list_without_a_folder_lists_what_would_be_served(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    assert "smiles/1\tbigru" in CliRunner().invoke(models, ["list"]).output


def test_check_proves_every_encoder_and_takes_no_port(copy: Path) -> None:
    shutil.rmtree(copy / "text")
    shutil.rmtree(copy / "smiles")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--check", "--models", str(copy), "--device", "cpu", "--grpc-port", port]
        result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("smiles-small/1\tgood: ")


def test_check_fails_where_one_encoder_is_broken(copy: Path) -> None:
    shutil.rmtree(copy / "smiles")
    (copy / "text" / "1" / "weights.bin").write_bytes(b"")
    shutil.rmtree(copy / "text" / "2")
    result = CliRunner().invoke(serve, ["--check", "--models", str(copy), "--device", "cpu"])
    assert result.exit_code == 1
    assert "smiles-small/1\tgood: " in result.stdout
    assert "text/1\tbroken: " in result.stdout


def test_list_of_a_folder_without_bundles_says_what_was_expected(tmp_path: Path) -> None:
    result = CliRunner().invoke(models, ["list", str(tmp_path)])
    assert result.exit_code == 1
    assert "NAME/VERSION/manifest.json" in result.output
