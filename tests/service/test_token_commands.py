"""`birnn tokens`."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from birnn_service.access import Access
from birnn_service.settings import load_settings
from birnn_service.token_commands import tokens
from birnn_service.token_file import Right


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(tokens, arguments, env={"BIRNN_TOKENS": str(path)})


def test_a_token_is_printed_once_and_works(path: Path) -> None:
    secret = run(path, "add", "lab-a").stdout.strip()
    scrape = run(path, "add", "prometheus", "--right", "metrics", "--right", "metrics").stdout.strip()
    assert secret.startswith("birnn_")
    assert len(secret) == len("birnn_") + 43
    assert secret not in path.read_text()
    access = Access(load_settings({"tokens": str(path)}))
    for token, right, name in ((secret, Right.ENCODE, "lab-a"), (scrape, Right.METRICS, "prometheus")):
        found = access.authorize(f"Bearer {token}", right)
        assert found is not None
        assert (found.name, found.rights) == (name, (right,))
    assert run(path, "list").stdout == "lab-a\tencode\nprometheus\tmetrics\n"


def test_a_name_is_taken_once_and_removed_once(path: Path) -> None:
    run(path, "add", "lab-a")
    before = path.read_bytes()
    assert "there is a token of lab-a" in run(path, "add", "lab-a").output
    assert path.read_bytes() == before
    run(path, "add", "lab-b")
    assert run(path, "remove", "lab-b").exit_code == 0
    assert path.read_bytes() == before
    missing = run(path, "remove", "lab-b")
    assert (missing.exit_code, "no token of lab-b" in missing.output) == (1, True)


def test_what_cannot_be_is_refused(path: Path) -> None:
    assert run(path, "add", "lab a").exit_code == 2
    assert run(path, "add", "lab", "--right", "everything").exit_code == 2
    assert run(path, "list").exit_code == 1
    assert not path.exists()
    path.write_text("{")
    assert "line 1" in run(path, "add", "lab").output
    assert path.read_text() == "{"
