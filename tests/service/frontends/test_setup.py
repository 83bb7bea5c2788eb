import subprocess
import sys
from pathlib import Path

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.catalog import Encoders
from birnn_service.engine.engine import EngineInfo
from birnn_service.errors import UnavailableError
from birnn_service.frontends.setup import RemoteEncoder, read_setup, write_setup
from birnn_service.settings_reader import load_settings
from birnn_service.statistics import Statistics
from birnn_service.transports.shared_port import Ports

MODELS = Path(__file__).parents[3] / "models"
INFO = EngineInfo("onnxruntime 1", "cpu", "float32", slots=2, max_rows=32, parallel_slots=True)


def served() -> Encoders[RemoteEncoder]:
    bundles = [Bundle.load(MODELS / name / "1") for name in ("text", "smiles")]
    remote = [RemoteEncoder(bundle.manifest, bundle.tokenizer, INFO) for bundle in bundles]
    return Encoders(remote, {("protein", "3"): "weights.bin was changed"})


def test_a_front_end_knows_what_is_served_and_what_is_broken_without_the_models_folder() -> None:
    encoders = served()
    given = load_settings({"grpc_port": 0, "models": "nowhere"})
    broken = {("protein", "3"): "weights.bin was changed"}
    statistics = Statistics(encoders)
    found, settings, kept = read_setup(write_setup(encoders, given, Ports(4711, None), statistics.row, broken))
    assert [encoder.manifest for encoder in found] == [encoder.manifest for encoder in encoders]
    assert [encoder.info for encoder in found] == [INFO, INFO]
    assert found.broken == {("protein", "3"): "weights.bin was changed"}
    assert [encoder.instance for encoder in found] == [encoder.instance for encoder in encoders]
    assert [encoder.row for encoder in found] == [statistics.row(encoder) for encoder in encoders]
    assert (settings.grpc_port, kept) == (4711, broken)
    with pytest.raises(UnavailableError, match="was changed"):
        found.find("protein", "")


@pytest.mark.parametrize("name", ["smiles", "text"])
def test_its_tokenizers_give_the_same_tokens(name: str) -> None:
    encoders = served()
    statistics = Statistics(encoders)
    found, _, _ = read_setup(write_setup(encoders, load_settings({}), Ports(1, None), statistics.row, {}))
    strings = [b"CC(=O)Oc1ccccc1C(=O)O", b"C[Zz]C", "A sentence, with a naïve word.".encode(), b""]
    ours = encoders.find(name, "").tokenizer.tokenize(strings, 1024)
    theirs = found.find(name, "").tokenizer.tokenize(strings, 1024)
    assert theirs.batch.ids.tolist() == ours.batch.ids.tolist()
    assert theirs.unknown.tolist() == ours.unknown.tolist()
    assert theirs.errors == ours.errors


def test_a_front_end_loads_no_engine() -> None:
    code = "import sys; sys.modules['onnxruntime'] = None; import birnn_service.frontends.process"
    subprocess.run([sys.executable, "-c", code], check=True)
