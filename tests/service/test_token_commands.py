"""`birnn tokens`."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from birnn_service.access import Access
from birnn_service.settings_reader import load_settings
from birnn_service.token_commands import tokens
from birnn_service.token_file import Right, read_tokens


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


def test_a_certificate_takes_the_place_of_a_token(path: Path) -> None:
    added = run(
        path, "add", "lab-a", "--certificate", "spiffe://example.org/lab-a", "--right", "encode", "--right", "gateway"
    )
    assert (added.exit_code, added.stdout) == (0, "")
    run(path, "add", "alice", "--no-token", "--weight", "4", "--sequences-per-second", "500", "--burst", "2000")
    assert run(path, "list").stdout == (
        "lab-a\tencode, gateway\tcertificate spiffe://example.org/lab-a\n"
        "alice\t\tno token, weight 4, 500 sequences/s, burst 2000\n"
    )
    grant = read_tokens(path.read_bytes()).by_certificate["spiffe://example.org/lab-a"]
    assert grant.rights == (Right.ENCODE, Right.GATEWAY)
    before = path.read_bytes()
    twice = run(path, "add", "lab-b", "--certificate", "spiffe://example.org/lab-a")
    assert "there is a line for the certificate" in twice.output
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--certificate", "a b"), "1 to 255 visible ASCII"),
        (("--weight", "0"), "weight"),
        (("--weight", "nan"), "weight"),
        (("--burst", "5"), "burst needs sequences_per_second"),
        (("--sequences-per-second", "-1"), "sequences-per-second"),
        (("--no-token", "--right", "encode"), "rights come with the JWT"),
        (("--no-token", "--certificate", "a"), "neither"),
    ],
)
def test_options_that_do_not_go_together_are_refused(path: Path, options: tuple[str, ...], said: str) -> None:
    refused = run(path, "add", "lab", *options)
    assert refused.exit_code == 2
    assert said in refused.output
    assert not path.exists()


def test_commands_at_once_lose_nothing(path: Path) -> None:
    command = [sys.executable, "-m", "birnn", "tokens", "add", "--tokens", str(path)]
    run(path, "add", "gone")
    others = [subprocess.Popen([*command, f"lab-{number}"], stdout=subprocess.DEVNULL) for number in range(6)]
    others.append(subprocess.Popen([*command[:4], "remove", "gone", "--tokens", str(path)]))
    assert [other.wait(timeout=300) for other in others] == 7 * [0]
    assert sorted(read_tokens(path.read_bytes()).by_name) == [f"lab-{number}" for number in range(6)]


def test_a_file_behind_a_link_is_changed_where_it_is(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere" / "tokens")
    run(path, "add", "lab")
    assert path.is_symlink()
    assert list(read_tokens((tmp_path / "elsewhere" / "tokens").read_bytes()).by_name) == ["lab"]
