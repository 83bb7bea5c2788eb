"""What the other servers read is what they expect; that they run is seen by `make bench-peers` alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers.comparison import CALLS
from bench.peers.mlserver import CONFIG_FILE, MLServer, write_settings
from bench.peers.ours import VARIANTS, Ours, is_ours, precision_of
from bench.peers.ray_serve import RayServe
from bench.peers.server import Server, free_port
from bench.peers.triton import MODEL, Triton, write_repository
from birnn.openinference import inference_pb2
from birnn_bundle.bundle import Bundle
from tests.e2e.server_process import MODELS

# In a process of its own: two copies of the protocol's messages cannot live in one.
READ_CONFIG = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
config = text_format.Parse(open(sys.argv[1]).read(), ModelConfig())
print(json_format.MessageToJson(config, preserving_proto_field_name=True))
"""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(MODELS / "smiles" / "1")


def test_tritons_model_repository_holds_the_model_and_its_settings(bundle: Bundle, tmp_path: Path) -> None:
    settings = {"max_batch_size": 64, "max_queue_delay_us": 1000, "instances": 2}
    write_repository(tmp_path / "models", bundle, settings)
    model = tmp_path / "models" / "smiles"
    assert (model / "1" / "model.py").read_bytes() == MODEL.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", READ_CONFIG, model / "config.pbtxt"], capture_output=True, text=True, check=True
    )
    config = json.loads(done.stdout)
    assert config["name"] == "smiles"
    assert config["backend"] == "python"
    assert config["max_batch_size"] == 64
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == "1000"
    assert config["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]
    assert config["input"] == [{"name": "text", "data_type": "TYPE_STRING", "dims": ["1"]}]
    assert config["output"] == [{"name": "embedding", "data_type": "TYPE_FP32", "dims": ["512"]}]
    assert config["parameters"]["bundle"]["string_value"] == str(bundle.path)


def test_mlservers_folder_holds_its_settings_and_the_answer_to_perf_analyzer(bundle: Bundle, tmp_path: Path) -> None:
    settings = {"max_batch_size": 32, "max_batch_time": 0.001, "parallel_workers": 2}
    write_settings(tmp_path, bundle, settings, {"grpc_port": 1, "http_port": 2, "metrics_port": 3})
    server = json.loads((tmp_path / "settings.json").read_text())
    model = json.loads((tmp_path / "smiles" / "model-settings.json").read_text())
    assert (server["host"], server["grpc_port"], server["parallel_workers"]) == ("127.0.0.1", 1, 2)
    assert (model["max_batch_size"], model["max_batch_time"]) == (32, 0.001)
    assert model["parameters"]["uri"] == str(bundle.path)
    reply = inference_pb2.ModelConfigResponse.FromString((tmp_path / CONFIG_FILE).read_bytes())
    assert reply.config.name == "smiles"
    assert list(reply.config.output[0].dims) == [512]


def test_the_runtime_named_in_mlservers_settings_exists() -> None:
    source = (MODEL.parent / "mlserver_runtime.py").read_text()
    assert "class EncoderRuntime(MLModel)" in source


@pytest.mark.parametrize("server", [Triton(), MLServer(), RayServe()])
def test_the_other_servers_are_tried_with_different_settings_on_one_core_and_on_all(server: Server) -> None:
    candidates = [tuple(sorted(settings.items())) for settings in server.candidates(4)]
    assert len(candidates) == len(set(candidates)) > 3
    counts = {value for settings in candidates for name, value in settings if name in COUNTS}
    assert {1, 4} <= counts


COUNTS = {"instances", "parallel_workers", "replicas"}


def test_tritons_batches_can_hold_a_call_of_every_load() -> None:
    from bench.loads import LOADS

    largest = max(load.batch for load in LOADS.values())
    assert all(settings["max_batch_size"] >= largest for settings in Triton().candidates(2))


def test_ours_has_nothing_to_search_and_takes_further_arguments(bundle: Bundle, tmp_path: Path) -> None:
    ours = Ours(("--engine", "onnxruntime"))
    assert ours.name == "ours --engine onnxruntime"
    assert list(ours.candidates(2)) == [{}]
    command = ours.prepare(bundle, {}, 2, tmp_path)
    assert list(command.arguments[-2:]) == ["--engine", "onnxruntime"]
    assert Bundle.load(tmp_path / "models" / "smiles" / "1").manifest == bundle.manifest


@pytest.mark.parametrize("name", list(VARIANTS))
def test_our_variants_have_names_of_their_own_and_are_known_as_ours(name: str, bundle: Bundle, tmp_path: Path) -> None:
    variant = Ours.variant(name)
    assert variant.name == ("ours" if name == "plain" else f"ours {name}")
    assert is_ours(variant.name)
    command = variant.prepare(bundle, {}, 2, tmp_path)
    assert precision_of(command.arguments) == (name.split()[-1] if "--precision" in command.arguments else "fp32")
    assert command.http is not None
    assert set(command.calls) <= set(CALLS.values())


def test_ports_are_free_and_different() -> None:
    assert free_port() != free_port()
