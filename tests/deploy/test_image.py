"""What makes the images small: packages that they leave out, files that they remove; and how bases are pinned."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.image import trim
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS
from tests.packaging.environments import ROOT, clean_environ
from tests.packaging.test_locks import LOCKS, entries, pins

SITE_PACKAGES = Path(str(distribution("numpy").locate_file("")))
LEFT_OUT = {canonicalize_name(requirement.name) for requirement, _ in entries(LOCKS / "left-out.in")}
# What only these bring, and modules that trim.py removes.
ABSENT = (
    *("huggingface_hub", "hf_xet", "fsspec", "httpx2", "httpcore2", "anyio", "truststore", "yaml"),
    "onnx.backend",
    "onnx.reference",
    "onnxruntime.quantization",
    "onnxruntime.tools",
    "onnxruntime.transformers",
    "numpy.f2py",
    "pydantic.v1",
)
SERVE = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
from birnn.cli.main import main
main(["serve", "--check", "--device", "cpu", "--models", sys.argv[1]])
"""


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_encoders_are_served_without_what_the_images_leave_out(engine: str, tmp_path: Path) -> None:
    for kind in ("text", "smiles-small"):
        shutil.copytree(MODELS / kind / "1", tmp_path / "models" / kind / "1")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path / "models")],
        env=clean_environ({"BIRNN_ENGINE": engine, "BIRNN_CACHE_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_lists_are_complete_but_for_what_is_left_out(kind: str) -> None:
    """For pip installs them as they are (--no-deps)."""
    locked = pins(LOCKS / f"{kind}.txt")
    assert not LEFT_OUT & locked.keys()
    missing = set()
    for name in locked:
        try:
            asked = map(Requirement, requires(name) or [])
        except PackageNotFoundError:  # of another platform, or of the other list
            continue
        missing |= {
            canonicalize_name(one.name) for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})
        } - locked.keys()
    assert missing <= LEFT_OUT


def test_what_is_removed_is_there() -> None:
    assert all(path.exists() for path in trim.dead(SITE_PACKAGES))
    assert all(trim.found(SITE_PACKAGES, pattern) for pattern in trim.UNSTRIPPED)


def test_a_list_that_names_what_is_gone_stops_the_build(tmp_path: Path) -> None:
    for place in ("pydantic-2.14.dist-info", "pydantic/v2"):
        (tmp_path / place).mkdir(parents=True)
    script = [sys.executable, str(Path(trim.__file__)), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pydantic/v1 is not there any more" in done.stderr


@pytest.fixture
def pinning(tmp_path: Path) -> Path:
    """A folder with copies of the files that name images."""
    for name in ("Dockerfile", "docker-compose.yml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def pin(folder: Path, skopeo: str) -> "subprocess.CompletedProcess[str]":
    """Pin bases with a program in place of skopeo, since there may be no registry."""
    (folder / "skopeo").write_text(f"#!/bin/sh\n{skopeo}\n", encoding="utf-8")
    (folder / "skopeo").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    command = [str(ROOT / "deploy" / "image" / "pin.sh"), "Dockerfile", "docker-compose.yml"]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "darwin", reason="the shell script is for GNU tools")
def test_every_base_is_pinned_to_the_digest_of_its_registry_and_again_later(pinning: Path) -> None:
    named = re.compile(r"^(?:ARG BASE=|\s*image: )(?!birnn-serving)(\S+)$", re.M)
    before = [
        image for file in ("Dockerfile", "docker-compose.yml") for image in named.findall((pinning / file).read_text())
    ]
    assert before
    for digit in ("a", "b"):
        done = pin(pinning, f'echo "$4" >> asked; printf "sha256:%s\\n" {digit * 64}')
        assert done.returncode == 0, done.stderr
        after = [
            image
            for file in ("Dockerfile", "docker-compose.yml")
            for image in named.findall((pinning / file).read_text())
        ]
        assert after == [f"{image.partition('@')[0]}@sha256:{digit * 64}" for image in before]
    asked = {line.removeprefix("docker://") for line in (pinning / "asked").read_text().split()}
    assert asked == {image.partition("@")[0] for image in before}


@pytest.mark.skipif(sys.platform == "darwin", reason="the shell script is for GNU tools")
@pytest.mark.parametrize("skopeo", ["exit 1", "echo"])
def test_without_a_registry_nothing_is_pinned(pinning: Path, skopeo: str) -> None:
    done = pin(pinning, skopeo)
    assert done.returncode != 0
    for name in ("Dockerfile", "docker-compose.yml"):
        assert (pinning / name).read_text() == (ROOT / name).read_text()
