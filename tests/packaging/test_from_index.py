"""What `make wheel` built, installed as users do: into empty environments, with all else from a package index.

These take minutes and a network; `make package-check` runs them.
"""

import shutil
import zipfile
from pathlib import Path

import pytest

import birnn
from tests.packaging.conftest import installed_server
from tests.packaging.environments import ROOT, Environment, run

pytestmark = pytest.mark.index

DIST = ROOT / "dist"
CONSTRAINTS = ROOT / "constraints.txt"
LOCKS = ROOT / "deploy" / "requirements"
# Distributions of other people that install what the folders of this repository are called.
SAME_NAMES = ("service", "export", "loadtest")
PLATFORMS = {
    "windows": ("win_amd64",),
    "macos": ("macosx_11_0_arm64", "macosx_12_0_arm64", "macosx_14_0_arm64", "macosx_11_0_universal2"),
}


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    assert list(DIST.glob("birnn_encoders-*.whl")), "there is nothing to install: run `make wheel`"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment.create(tmp_path_factory.mktemp("index") / "venv")
    environment.pip("install", "--quiet", "--find-links", DIST, "-c", CONSTRAINTS, "birnn-serving[service,cpu]")
    return environment


def test_what_an_empty_environment_installs_serves_the_encoders_on_kernels(
    environment: Environment, tmp_path: Path
) -> None:
    with installed_server(environment, tmp_path) as server, birnn.Client(server.address) as client:
        assert client.encode(["CCO"], encoder="smiles").shape == (1, 1024)
    log = "".join(server.log)
    assert "serving the installed birnn-encoders" in log
    assert "smiles/2: bigru, native" in log


def test_other_peoples_distributions_of_the_same_names_change_nothing(environment: Environment, tmp_path: Path) -> None:
    for name in SAME_NAMES:
        environment.pip("install", "--quiet", "--no-deps", name)
        assert any((environment.site_packages / place).exists() for place in (name, f"{name}.py"))
    with installed_server(environment, tmp_path) as server, birnn.Client(server.address) as client:
        assert client.encode(["CCO"], encoder="smiles").shape == (1, 1024)
    run(environment.program("birnn"), "loadtest", "--help")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_client_installs_where_no_kernels_can_be_built(platform: str, tmp_path: Path) -> None:
    environment = Environment.create(tmp_path / "venv")
    tags = [argument for tag in PLATFORMS[platform] for argument in ("--platform", tag)]
    target = tmp_path / "target"
    environment.pip(
        *("install", "--quiet", "--only-binary=:all:", "--python-version", "3.12", *tags),
        *("--target", target, "--find-links", DIST, "-c", CONSTRAINTS, "birnn-serving"),
    )
    assert (target / "birnn" / "py.typed").is_file()
    assert not (target / "birnn_native" / "_kernels.so").exists()


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_constraints_allow_an_installation(kind: str, tmp_path: Path) -> None:
    environment = Environment.create(tmp_path / "venv")
    would = environment.pip(
        "install", "--dry-run", "--find-links", DIST, "-c", CONSTRAINTS, f"birnn-serving[service,{kind}]"
    )
    assert {"cpu": "onnxruntime-1", "gpu": "onnxruntime-gpu-1"}[kind] in would


@pytest.mark.parametrize("file", ["build.txt", "cpu.txt"])
def test_the_lists_of_the_images_install_by_their_hashes(file: str, tmp_path: Path) -> None:
    environment = Environment.create(tmp_path / "venv")
    environment.pip("install", "--quiet", "--require-hashes", "-r", LOCKS / file)
    environment.pip("check")


def test_the_list_of_the_gpu_image_would_install_by_its_hashes(tmp_path: Path) -> None:
    would = Environment.create(tmp_path / "venv").pip(
        "install", "--dry-run", "--require-hashes", "-r", LOCKS / "gpu.txt"
    )
    assert "onnxruntime-gpu-1" in would


LOADS = """
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char** names) {
    for (int i = 1; i < count; i += 2) {
        void* library = dlopen(names[i], RTLD_NOW);
        if (!library || !dlsym(library, names[i + 1])) return puts("cannot be loaded"), puts(dlerror()), 1;
    }
}
"""


def test_the_kernels_for_aarch64_load_there(tmp_path: Path) -> None:
    wheels = list(DIST.glob("birnn_serving-*_aarch64.whl"))
    if not wheels:
        pytest.skip("there is no wheel for aarch64: `make wheel-aarch64` builds one")
    for program in ("aarch64-linux-gnu-gcc", "qemu-aarch64"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "loads.c").write_text(LOADS)
    run("aarch64-linux-gnu-gcc", "loads.c", "-o", "loads", cwd=tmp_path)
    native = tmp_path / "birnn_native"
    run(
        *("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", tmp_path / "loads"),
        *(native / "_kernels.so", "birnn_instruction_sets", native / "_front.so", "birnn_front_open"),
    )
