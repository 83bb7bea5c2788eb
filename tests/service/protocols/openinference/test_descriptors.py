import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("descriptors.py")


def descriptors(*modules: str) -> dict[str, dict[str, Any]]:
    done = subprocess.run([sys.executable, SCRIPT, *modules], check=True, capture_output=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


# Replies to orders are KServe's; those of Triton hold nothing, and its clients read nothing in them.
KSERVES = {"inference.RepositoryModelLoadResponse", "inference.RepositoryModelUnloadResponse"}


def test_every_field_and_method_is_triton_s() -> None:
    theirs = descriptors("tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2")
    ours = descriptors("birnn.openinference.inference_pb2")
    assert ours.keys() >= KSERVES
    for name in ours.keys() - KSERVES:
        assert ours[name].items() <= theirs[name].items(), name
    for name in KSERVES:
        assert not theirs[name]
