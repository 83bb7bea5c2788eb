import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError
from birnn_service.sources.folder import FolderSource
from birnn_service.sources.source import MOST_BUNDLES, SourceError
from birnn_service.state import Address

MODELS = Path(__file__).parents[3] / "models"
SMALL = ("smiles-small", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with one bundle."""
    shutil.copytree(MODELS / "smiles-small", tmp_path / "smiles-small")
    return tmp_path


def test_every_bundle_is_found_by_the_names_of_its_folders() -> None:
    source = FolderSource(MODELS)
    addresses = list(source.look().bundles)
    assert SMALL in addresses
    assert {source.fetch(address) for address in addresses} == {p.parent for p in MODELS.glob("*/*/manifest.json")}


def test_hidden_folders_are_no_encoders(folder: Path) -> None:
    shutil.copytree(folder / "smiles-small", folder / ".smiles")
    shutil.copytree(folder / "smiles-small" / "1", folder / "smiles-small" / ".2.partial")
    assert list(FolderSource(folder).look().bundles) == [SMALL]


def test_the_fingerprint_stays_while_nothing_changes(folder: Path) -> None:
    assert FolderSource(folder).look() == FolderSource(folder).look()


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin", "README.md"])
def test_a_file_replaced_by_one_of_the_same_size_and_time_changes_the_fingerprint(folder: Path, name: str) -> None:
    before = FolderSource(folder).look().bundles[SMALL]
    path = folder / "smiles-small" / "1" / name
    state = path.stat()
    path.with_suffix(".new").write_bytes(bytes(state.st_size))
    path.with_suffix(".new").rename(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert FolderSource(folder).look().bundles[SMALL] != before


def test_a_file_added_or_removed_changes_the_fingerprint(folder: Path) -> None:
    seen = {FolderSource(folder).look().bundles[SMALL]}
    (folder / "smiles-small" / "1" / "more").mkdir()
    (folder / "smiles-small" / "1" / "more" / "file").touch()
    seen.add(FolderSource(folder).look().bundles[SMALL])
    (folder / "smiles-small" / "1" / "weights.bin").unlink()
    seen.add(FolderSource(folder).look().bundles[SMALL])
    (folder / "smiles-small" / "1" / "weights.bin").symlink_to("nowhere")
    seen.add(FolderSource(folder).look().bundles[SMALL])
    assert len(seen) == 4


def test_a_bundle_with_endless_files_is_looked_at_in_bounded_time(folder: Path) -> None:
    for number in range(2100):
        (folder / "smiles-small" / "1" / f"{number}.bin").touch()
    found = FolderSource(folder).look().bundles[SMALL]
    assert isinstance(found, tuple)
    assert len(found) == 2000


def test_more_bundles_than_expected_are_refused(tmp_path: Path) -> None:
    for number in range(MOST_BUNDLES + 1):
        (tmp_path / "many" / str(number)).mkdir(parents=True)
        (tmp_path / "many" / str(number) / "manifest.json").touch()
    with pytest.raises(SourceError, match=f"holds {MOST_BUNDLES + 1} bundles, {MOST_BUNDLES} at most"):
        FolderSource(tmp_path).look()


def test_a_folder_that_is_a_bundle_itself_serves_it_by_the_names_of_its_manifest(folder: Path) -> None:
    mounted = folder / "mnt"
    shutil.move(folder / "smiles-small" / "1", mounted)
    source = FolderSource(mounted)
    assert list(source.look().bundles) == [SMALL]
    assert source.fetch(SMALL) == mounted


def test_a_bundle_that_the_folder_is_and_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(SourceError, match=r"cannot serve the bundle .*manifest.json is not valid"):
        FolderSource(tmp_path).look()


def test_a_folder_one_level_too_deep_names_the_one_above() -> None:
    with pytest.raises(SourceError, match=rf"versions; give the folder above: --models {MODELS}$"):
        FolderSource(MODELS / "smiles").look()


def test_a_folder_that_does_not_exist_or_is_empty_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist; give one with --models"):
        FolderSource(tmp_path / "none").look()
    with pytest.raises(SourceError, match=r"expected .*/NAME/VERSION/manifest.json"):
        FolderSource(tmp_path).look()


@pytest.mark.parametrize(
    "address",
    [("smiles-small", "2"), ("..", "1"), ("smiles-small", ".."), ("smiles-small/1", "."), ("", "1"), ("a\0b", "1"),
     ("smiles-small", "1/../1"), ("/etc", "1"), ("smiles-small\\1", "1")],
)  # fmt: skip
def test_only_bundles_of_the_folder_can_be_fetched(folder: Path, address: Address) -> None:
    with pytest.raises(SourceError, match="no encoder "):
        FolderSource(folder).fetch(address)


def test_aliases_are_read_where_they_are(folder: Path) -> None:
    assert FolderSource(folder).look().aliases == {}
    (folder / "smiles-small" / "aliases.json").write_text('{"stable": 1, "canary": 2}')
    look = FolderSource(folder).look()
    assert look.aliases == {"smiles-small": {"stable": 1, "canary": 2}}
    assert not look.problems


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 60_000, "is not JSON"),
        (b"[1]", "is not an object"),
        (b'{"stable": 1, "stable": 2}', "a key is there twice"),
        (b'{"stable": "1"}', "not for a version"),
        (b'{"stable": true}', "not for a version"),
        (b'{"stable": 0}', "not for a version"),
        (b'{"2": 1}', "'2' is no alias"),
        (b'{"St\xc3\xa4ble": 1}', "is no alias"),
        (b" " * 70_000, "65536 at most"),
        (b"{" + b",".join(b'"a%d": 1' % number for number in range(101)) + b"}", "101 aliases, 100 at most"),
    ],
)
def test_damaged_aliases_are_reported_and_the_bundles_are_there(folder: Path, content: bytes, reason: str) -> None:
    (folder / "smiles-small" / "aliases.json").write_bytes(content)
    look = FolderSource(folder).look()
    assert list(look.bundles) == [SMALL]
    assert not look.aliases
    assert reason in look.problems["smiles-small/aliases.json"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_bundle_that_may_not_be_read_is_there_and_says_why() -> None:
    with TemporaryDirectory() as place:
        models = Path(place) / "models"
        shutil.copytree(MODELS / "smiles-small", models / "smiles-small")
        Path(place).chmod(0o755)
        before = FolderSource(models).look().bundles
        (models / "smiles-small" / "1").chmod(0)
        user = os.geteuid()
        try:
            if not user:
                # This user may read everything.
                os.seteuid(65534)
            after = FolderSource(models).look().bundles
            assert after.keys() == before.keys()
            assert after != before
            with pytest.raises(BundleError, match="Permission denied"):
                Bundle.load(FolderSource(models).fetch(("smiles-small", "1")))
        finally:
            os.seteuid(user)
            (models / "smiles-small" / "1").chmod(0o755)
