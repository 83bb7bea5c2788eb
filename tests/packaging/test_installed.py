"""What is installed works, in an empty folder and beside names that others took."""

from pathlib import Path

import pytest

import birnn
from tests.packaging.conftest import Distributions, installed_server
from tests.packaging.environments import ROOT, Environment, run

FOLDERS = ("bulk", "bundle", "export", "loadtest", "native", "service")


@pytest.fixture
def strangers(tmp_path: Path) -> str:
    """A folder for PYTHONPATH with modules named like our folders, none of which may be imported."""
    for name in (*FOLDERS, "protos"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__name__} was imported')\n")
    return str(tmp_path)


def test_in_an_empty_folder_the_installed_encoders_are_served(
    installed: Environment, strangers: str, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with (
        installed_server(installed, folder, PYTHONPATH=strangers) as server,
        birnn.Client(server.address) as client,
    ):
        assert client.encode(["CCO"], encoder="smiles").shape == (1, 1024)
        assert client.encode(["two words"], encoder="text").shape == (1, 512)
    log = "".join(server.log)
    assert "serving the installed birnn-encoders 0.2.0" in log
    assert "WARNING the native kernels were not built" in log


@pytest.mark.parametrize(
    "arguments",
    [[name, "--help"] for name in ("serve", "export", "loadtest", "bulk")] + [["models", "list"], ["--version"]],
    ids=" ".join,
)
def test_commands_work_beside_modules_named_like_our_folders(
    arguments: list[str], installed: Environment, strangers: str, tmp_path: Path
) -> None:
    run(installed.program("birnn"), *arguments, cwd=tmp_path, env={"PYTHONPATH": strangers})


def test_the_package_runs_as_a_module_beside_them(installed: Environment, strangers: str, tmp_path: Path) -> None:
    run(installed.python, "-m", "birnn", "export", "--help", cwd=tmp_path, env={"PYTHONPATH": strangers})


def test_the_installed_kernel_sources_are_not_those_of_this_tree(installed: Environment) -> None:
    code = "import birnn, birnn_service, birnn_native; print(birnn.__file__, birnn_service.__file__)"
    assert str(ROOT) not in run(installed.python, "-c", code, cwd=installed.place).stdout


def test_a_clone_installs_editable(distributions: Distributions, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone of the repository")
    run("git", "clone", "--quiet", "--shared", ROOT, clone)
    environment = Environment.create(tmp_path / "venv", borrow=True)
    quickly = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    environment.pip("install", *quickly, "-e", clone / "models", "-e", clone, env={"BIRNN_KERNELS": "0"})
    listed = run(environment.program("birnn"), "models", "list", "--json", cwd=tmp_path).stdout
    assert str(clone / "models" / "smiles" / "2") in listed
    for package in ("birnn", *(f"birnn_{name}" for name in FOLDERS)):
        done = run(environment.python, "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
        assert Path(done.stdout.strip()).is_relative_to(clone)
