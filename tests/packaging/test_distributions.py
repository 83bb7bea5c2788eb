"""What is in the distributions."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

from tests.packaging.conftest import Distributions
from tests.packaging.environments import ROOT, Environment, run


def names(wheel: Path) -> list[PurePosixPath]:
    with zipfile.ZipFile(wheel) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def tracked() -> list[str]:
    """All files of the repository."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no clone of the repository")
    return run("git", "ls-files", "-z", cwd=ROOT).stdout.rstrip("\0").split("\0")


def test_every_name_that_is_installed_begins_with_birnn(distributions: Distributions) -> None:
    top = {path.parts[0] for wheel in (distributions.wheel, distributions.encoders) for path in names(wheel)}
    assert {name for name in top if not name.startswith("birnn")} == set()
    assert {"birnn", "birnn_bundle", "birnn_encoders", "birnn_export", "birnn_native", "birnn_service"} <= top


def test_the_source_distribution_is_the_whole_repository(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert [path for path in tracked() if path not in packed and (ROOT / path).exists()] == []


def test_the_encoders_are_those_of_the_models_folder(distributions: Distributions) -> None:
    packed = {path.relative_to("birnn_encoders") for path in names(distributions.encoders) if len(path.parts) == 4}
    kept = {PurePosixPath(path.relative_to(ROOT / "models")) for path in (ROOT / "models").glob("*/[0-9]*/*")}
    assert packed == kept != set()


def test_the_wheel_holds_the_page(distributions: Distributions) -> None:
    folder = PurePosixPath("birnn_service/protocols/page/site")
    packed = {path.name for path in names(distributions.wheel) if path.parent == folder}
    assert packed == {path.name for path in (ROOT / "service" / folder).iterdir()} != set()


def test_the_readme_has_no_relative_link_and_each_link_to_the_repository_leads_to_a_file(
    distributions: Distributions,
) -> None:
    found = metadata(distributions.wheel)
    links = re.findall(r"\]\(([^)]*)\)", str(found.get_payload()))
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    urls = dict(url.split(", ") for url in found.get_all("Project-URL", []))
    prefix = f"{urls['Repository']}/blob/v{found['Version']}/"
    ours = [link.removeprefix(prefix).partition("#")[0] for link in links if link.startswith(prefix)]
    assert len(ours) > 5
    assert [link for link in ours if not (distributions.source / link).exists()] == []


def test_the_metadata_says_where_the_project_lives_and_what_it_runs_on(distributions: Distributions) -> None:
    found = metadata(distributions.wheel)
    assert {"Repository", "Documentation", "Changelog", "Issues"} <= {
        url.partition(",")[0] for url in found.get_all("Project-URL", [])
    }
    classifiers = found.get_all("Classifier", [])
    assert "Typing :: Typed" in classifiers
    assert f"Programming Language :: Python :: {sys.version_info[0]}.{sys.version_info[1]}" in classifiers
    assert any(classifier.startswith("Operating System :: Microsoft") for classifier in classifiers)


def test_without_kernels_one_wheel_fits_every_platform(
    distributions: Distributions, installed: Environment, tmp_path: Path
) -> None:
    assert distributions.wheel.name.endswith("-py3-none-any.whl")
    assert [path for path in names(distributions.wheel) if path.suffix in (".so", ".dll", ".dylib", ".pyd")] == []
    for platform in ("win_amd64", "macosx_11_0_arm64"):
        target = tmp_path / platform
        arguments = ("--no-index", "--no-deps", "--only-binary=:all:", "--platform", platform, "--target", target)
        installed.pip("install", "--quiet", *arguments, distributions.wheel)
        done = run(installed.python, "-c", "import birnn; print(birnn.__file__)", env={"PYTHONPATH": str(target)})
        assert Path(done.stdout.strip()).is_relative_to(target)


@pytest.mark.parametrize("value", ["yes", "", "2"])
def test_a_misspelt_wish_for_kernels_stops_the_build(value: str, distributions: Distributions, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(
        command, cwd=distributions.source, env={"BIRNN_KERNELS": value}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"BIRNN_KERNELS is {value!r}; it can be auto, 0 or 1" in done.stderr


def test_the_source_distribution_tests_itself(distributions: Distributions) -> None:
    roots = ("client", "bundle", "export", "native", "service", "loadtest", "bulk", ".")
    tests = ("tests/bundle/test_ragged.py", "tests/service/test_settings.py")
    path = os.pathsep.join(str(distributions.source / root) for root in roots)
    run(
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        *tests,
        cwd=distributions.source,
        env={"PYTHONPATH": path},
    )
