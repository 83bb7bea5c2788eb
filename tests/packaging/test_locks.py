"""What the images install is what pyproject.toml asks for and constraints.txt pins, each file by its hash."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.environments import ROOT

LOCKS = ROOT / "deploy" / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def entries(file: Path) -> Iterator[tuple[Requirement, list[str]]]:
    """Requirements of a file with the options behind each, here the hashes."""
    logical = re.sub(r"\\\n", " ", file.read_text(encoding="utf-8"))
    for line in logical.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *options = line.split(" --")
            yield Requirement(requirement), [f"--{option.strip()}" for option in options]


def pins(file: Path) -> dict[str, str]:
    """Version of each package of a file that pins all."""
    found: dict[str, str] = {}
    for requirement, _ in entries(file):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_list_of_an_image_pins_all_that_the_project_asks_for(kind: str) -> None:
    locked = pins(LOCKS / f"{kind}.txt")
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"]]
    for extra in ("service", "sources", "otel", "bulk", kind):
        asked += extras[extra]
    unmet = [
        str(requirement)
        for requirement in map(Requirement, asked)
        # The image gets the encoders as a folder.
        if requirement.name != "birnn-encoders"
        and not requirement.specifier.contains(locked.get(canonicalize_name(requirement.name), "0"))
    ]
    assert not unmet, f"run `make lock`: {', '.join(unmet)}"


def test_the_lists_and_the_constraints_of_make_agree() -> None:
    constraints = pins(ROOT / "constraints.txt")
    for file in LOCKS.glob("*.txt"):
        differing = {
            name: (version, constraints[name])
            for name, version in pins(file).items()
            if constraints.get(name, version) != version
        }
        assert not differing, f"run `make lock`: {file.name} and constraints.txt differ in {differing}"


def test_both_ways_to_serve_are_constrained() -> None:
    constraints = pins(ROOT / "constraints.txt")
    for kind in ("cpu", "gpu"):
        for requirement in map(Requirement, PROJECT["project"]["optional-dependencies"][kind]):
            assert canonicalize_name(requirement.name) in constraints


@pytest.mark.parametrize("file", ["build.txt", "cpu.txt", "gpu.txt"])
def test_every_file_of_a_list_has_hashes_and_no_address(file: str) -> None:
    for requirement, options in entries(LOCKS / file):
        assert options, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option.split()[0]) for option in options), requirement
    assert "://" not in (LOCKS / file).read_text(encoding="utf-8")


def test_images_install_nothing_but_what_has_a_hash() -> None:
    installs = re.findall(r"pip install((?:[^\n]*\\\n)*[^\n]*)", DOCKERFILE)
    assert len(installs) == 4
    by_hash = [install for install in installs if "--require-hashes" in install]
    assert len(by_hash) == 3
    (ours,) = set(installs) - set(by_hash)
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(ours.split())
