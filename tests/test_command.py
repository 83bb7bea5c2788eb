"""The `birnn` command finds its subcommands, and says what is missing where one cannot be loaded."""

import subprocess
import sys

import pytest

from birnn.cli.main import TARGETS


def birnn(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh interpreter in which the package `without` is not installed."""
    code = f"import sys; sys.modules.update({{{without!r}: None}}); from birnn.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("command", TARGETS)
def test_every_subcommand_explains_itself(command: str) -> None:
    done = birnn(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("train", "torch", "export"), ("export", "torch", "export,cpu"), ("serve", "onnxruntime", "service,cpu")],
)
def test_a_missing_package_names_the_extra_that_brings_it(command: str, package: str, extra: str) -> None:
    done = birnn(command, "--help", without=package)
    assert done.returncode == 1
    assert f"pip install 'birnn-serving[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_clients_without_the_service_see_how_to_ask_a_server() -> None:
    done = birnn("models", "--help", without="pydantic")
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in ("load", "status", "unload"))
    assert "birnn-serving[service,cpu]" in done.stdout
    assert "\n  verify " not in done.stdout
    assert "Python package" not in birnn("models", "--help").stdout
    assert "birnn-serving[service,cpu]" in birnn("models", "verify", without="pydantic").stderr


@pytest.mark.parametrize("package", ["onnxruntime", "pydantic", "safetensors"])
def test_the_doctor_starts_whatever_is_missing(package: str) -> None:
    done = birnn("doctor", "--help", without=package)
    assert done.returncode == 0, done.stderr


def test_the_overview_needs_none_of_the_heavy_packages() -> None:
    done = birnn("--help", without="torch")
    assert done.returncode == 0
    assert all(name in done.stdout for name in TARGETS)


def test_an_unknown_subcommand_is_a_usage_error() -> None:
    assert birnn("fly").returncode == 2


def test_a_mistyped_name_is_told_from_what_was_probably_meant() -> None:
    option = ["encode", "--element-typ", "x"]
    for arguments, meant in ((["encod"], "encode"), (["modles"], "models"), (option, "--element-type")):
        done = birnn(*arguments)
        assert done.returncode == 2
        assert f"Did you mean '{meant}'?" in done.stderr
    assert "No such command 'zzz'" in birnn("zzz").stderr


def test_the_package_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "birnn", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == birnn("--help").stdout.replace("Usage: -c", "Usage: birnn")


def test_errors_cannot_move_a_terminal() -> None:
    for arguments in (
        ["\x1b[2J"],
        ["encode", "--\x1b[2J"],
        ["train", "\x1b[2J.smi", "-o", "nowhere"],
        ["map", "\x1b[2J"],
    ):
        done = birnn(*arguments)
        assert done.returncode != 0
        assert all(letter.isprintable() or letter == "\n" for letter in done.stderr), done.stderr
