"""The distributions of this tree, built once: everything comes from the source distribution, as on a package index."""

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess, serving
from tests.packaging.environments import ROOT, Environment, clean_environ, run


@dataclass(frozen=True)
class Distributions:
    """What was built.

    Attributes:
        sdist: The source distribution of birnn-serving.
        source: Where that is unpacked.
        wheel: The wheel of birnn-serving without kernels.
        encoders: The wheel of birnn-encoders.
    """

    sdist: Path
    source: Path
    wheel: Path
    encoders: Path


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("distributions")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    for project in (source, source / "models"):
        run(
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"),
            *("-w", folder / "wheels", project),
            env={"BIRNN_KERNELS": "0"},
        )
    (wheel,) = (folder / "wheels").glob("birnn_serving-*.whl")
    (encoders,) = (folder / "wheels").glob("birnn_encoders-*.whl")
    return Distributions(sdist, source, wheel, encoders)


@pytest.fixture(scope="session")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Both wheels, with third-party packages borrowed: those are the same as from an index, and cost no minutes."""
    environment = Environment.create(tmp_path_factory.mktemp("environment") / "venv", borrow=True)
    environment.pip("install", "--quiet", "--no-index", "--no-deps", distributions.wheel, distributions.encoders)
    return environment


@contextmanager
def installed_server(environment: Environment, folder: Path, *arguments: str, **env: str) -> Iterator[ServerProcess]:
    """`birnn serve` of an environment, started in a folder."""
    command = [str(environment.program("birnn")), "serve", "--device", "cpu", "--grpc-port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        [*command, *arguments], cwd=folder, env=clean_environ(env), stderr=subprocess.PIPE, text=True
    )
    with serving(process) as server:
        yield server
