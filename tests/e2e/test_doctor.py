"""`birnn doctor`, on this machine and on broken ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import MODELS, PATIENCE_SECONDS
from tests.service.engine.bundles import version_of

# A driver with one GPU, as far as the doctor asks it.
DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Test GPU", size); return 0; }
int cuDeviceTotalMem_v2(unsigned long *size, int device) { *size = 16ul << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small encoder, which allows half precision."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS / "smiles-small", folder / "smiles-small")
    return folder


class Told:
    """What the doctor said."""

    def __init__(self, code: int, page: str, report: dict[str, Any]) -> None:
        self.code, self.page, self.report = code, page, report

    def finding(self, name: str) -> dict[str, str]:
        (found,) = (each for each in self.report["findings"] if each["name"] == name)
        return dict(found)

    def verdicts(self, engine: str, precision: str = "fp32") -> dict[str, str]:
        return {
            trial["bundle"]: trial["verdict"]
            for trial in self.report["trials"]
            if (trial["engine"], trial["precision"]) == (engine, precision)
        }


def doctor(
    models: Path, tmp_path: Path, *arguments: str, python: str = "", env: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Told:  # fmt: skip
    """Run it where each Python process runs the text `python` when it starts."""
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site" / "sitecustomize.py").write_text(python)
    command = [*prefix, sys.executable, "-m", "birnn.cli.main", "doctor", "--models", str(models)]
    command += ["--json", str(tmp_path / "report.json"), "--seconds", "0", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_SECONDS)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in (0, 1), done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["can_serve"] == (done.returncode == 0)
    return Told(done.returncode, done.stdout, report)


def test_a_good_machine_can_serve_and_its_engines_are_measured(models: Path, tmp_path: Path) -> None:
    told = doctor(models, tmp_path, "--device", "cpu", "--seconds", "2")
    assert told.code == 0, told.page
    assert told.page.endswith("cpu can serve 1 of 1 encoders\n")
    assert told.verdicts("onnxruntime") == told.verdicts("native") == {"smiles-small/1": "good"}
    # It allows int8, which all kernels compute in.
    assert told.verdicts("native", "int8") == {"smiles-small/1": "good"}
    assert "portable (fp32, int8)" in told.finding("kernels")["text"]
    for trial in told.report["trials"]:
        if trial["verdict"] == "good":
            assert trial["runs"] in told.page
            assert trial["cosine"] > 0.999
            first = trial["sweep"][0]
            assert first["sequences_per_second"] == pytest.approx(first["rows"] / first["seconds"])
    assert not any("NVIDIA" in finding["name"] for finding in told.report["findings"])


def test_no_time_means_no_measurements(models: Path, tmp_path: Path) -> None:
    told = doctor(models, tmp_path)
    assert told.code == 0
    assert not any(trial["sweep"] for trial in told.report["trials"])
    assert "sequences/s" not in told.page


def test_broken_bundles_are_named_and_their_neighbors_tried(models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "models"
    shutil.copytree(models, broken)
    for name in ("changed", "garbled"):
        version_of(broken, name, 1, 1.0)
    (broken / "changed" / "1" / "weights.bin").write_bytes(b"other weights")
    (broken / "garbled" / "1" / "manifest.json").write_text("{")
    told = doctor(broken, tmp_path, "--device", "cpu")
    assert told.code == 1
    assert told.verdicts("native") == {"changed/1": "refused", "garbled/1": "refused", "smiles-small/1": "good"}
    reasons = {reason["name"]: reason["text"] for reason in told.report["reasons"]}
    assert reasons.keys() == {"changed/1", "garbled/1"}
    assert "weights.bin was changed" in reasons["changed/1"]
    assert "cpu cannot serve:\n  changed/1: " in told.page


def test_without_onnxruntime_nothing_can_be_served_and_the_cure_is_a_command(models: Path, tmp_path: Path) -> None:
    told = doctor(models, tmp_path, python="import sys; sys.modules['onnxruntime'] = None")
    assert told.code == 1
    assert told.finding("onnxruntime")["status"] == "broken"
    assert told.finding("onnxruntime")["cure"] == "pip install 'birnn-serving[service,cpu]'"
    assert told.report["trials"] == []
    assert "-> pip install 'birnn-serving[service,cpu]'" in told.page


def test_without_the_packages_of_a_server_it_says_which_is_missing(models: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules.update(pydantic=None, uvicorn=None, prometheus_client=None)"
    told = doctor(models, tmp_path, python=blocked)
    assert told.code == 1
    assert "pydantic" in told.finding("server")["text"] or "prometheus" in told.finding("server")["text"]
    assert told.finding("server")["cure"] == "pip install 'birnn-serving[service,cpu]'"


def test_code_that_is_not_installed_cannot_serve(models: Path, tmp_path: Path) -> None:
    uninstalled = """
from importlib import metadata
installed = metadata.version
def version(name):
    if name == "birnn-serving":
        raise metadata.PackageNotFoundError(name)
    return installed(name)
metadata.version = version
"""
    told = doctor(models, tmp_path, python=uninstalled)
    assert told.code == 1
    assert "birnn-serving" in told.finding("server")["text"]
    assert told.page.startswith("birnn-serving (not installed), ")


def test_without_kernels_onnxruntime_serves(models: Path, tmp_path: Path) -> None:
    missing = """
import birnn_native.library as library
def load_library():
    raise library.NativeUnavailableError("the native kernels were not built")
library.load_library = load_library
"""
    told = doctor(models, tmp_path, "--device", "cpu", python=missing)
    assert told.code == 0
    assert told.finding("kernels")["status"] == "note"
    assert "were not built" in told.finding("kernels")["text"]
    assert "compiler" in told.finding("kernels")["cure"]
    assert told.verdicts("native") == {"smiles-small/1": "refused"}
    assert told.verdicts("onnxruntime") == {"smiles-small/1": "good"}


def test_an_engine_that_crashes_is_a_line_and_the_others_are_tried(models: Path, tmp_path: Path) -> None:
    crash = f"""
import os
import birnn_native.kernel
birnn_native.kernel.Kernel.run = lambda *_: os.kill(os.getpid(), {int(signal.SIGSEGV)})
"""
    both = tmp_path / "models"
    shutil.copytree(models, both)
    version_of(both, "other", 1, 1.0)
    told = doctor(both, tmp_path, "--device", "cpu", python=crash)
    assert told.code == 0
    assert told.verdicts("native") == {"other/1": "crashed", "smiles-small/1": "crashed"}
    assert told.verdicts("onnxruntime") == {"other/1": "good", "smiles-small/1": "good"}
    assert "crashed: ended by SIGSEGV" in told.page


@pytest.mark.parametrize(("device", "code", "extra"), [("cpu", 0, "cpu"), ("cuda", 1, "gpu")])
def test_both_packages_of_onnxruntime_are_told_apart_from_one(
    models: Path, tmp_path: Path, device: str, code: int, extra: str
) -> None:
    installed = tmp_path / "site" / "onnxruntime_gpu-1.31.1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    told = doctor(models, tmp_path, "--device", device)
    assert told.code == code
    assert told.finding("packages")["status"] == ("broken" if device == "cuda" else "note")
    assert told.finding("packages")["cure"] == (
        f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'birnn-serving[service,{extra}]'"
    )


def test_cuda_that_is_not_there_is_an_error_that_says_what_to_do(models: Path, tmp_path: Path) -> None:
    told = doctor(models, tmp_path, "--device", "cuda")
    if told.code == 0:
        pytest.skip("there is a GPU here")
    assert {"NVIDIA driver", "CUDA"} <= {reason["name"] for reason in told.report["reasons"]}
    assert told.finding("CUDA")["cure"] == "pip uninstall -y onnxruntime && pip install 'birnn-serving[service,gpu]'"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_gpu_that_onnxruntime_cannot_use_is_shown(models: Path, tmp_path: Path) -> None:
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True)
    told = doctor(models, tmp_path, env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert told.code == 0
    assert told.finding("NVIDIA driver")["text"].endswith("for CUDA up to 12.4")
    assert told.finding("GPU 0")["text"] == "Test GPU, 16384 MiB, compute capability 9.0"


def test_an_empty_folder_can_serve_nothing(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    told = doctor(tmp_path / "models", tmp_path)
    assert told.code == 1
    assert "--models" in told.finding("encoders")["cure"]


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit")
def test_too_few_files_are_what_stops_a_server(models: Path, tmp_path: Path) -> None:
    told = doctor(models, tmp_path, prefix=["prlimit", "--nofile=64:64"])
    assert told.code == 1
    assert [reason["name"] for reason in told.report["reasons"]] == ["descriptors"]
    assert "at most 64 open files, a server needs 128" in told.page


def test_a_report_that_cannot_be_written_is_an_error(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "birnn.cli.main", "doctor", "--models", str(models), "--seconds", "0"]
    done = subprocess.run([*command, "--json", str(tmp_path / "none" / "x.json")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "can serve 1 of 1" in done.stdout
