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


def test_every_field_and_method_is_triton_s() -> None:
    theirs = descriptors("tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2")
    for name, ours in descriptors("birnn.openinference.inference_pb2").items():
        assert ours.items() <= theirs[name].items(), name
