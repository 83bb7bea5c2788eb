"""Files that come from a store or a folder, with any content: what reads them accepts or refuses, and nothing else."""

import json
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.errors import BundleError
from birnn_bundle.manifest import inside
from birnn_bundle.signature import Signature
from birnn_service.sources.aliases import read_aliases
from birnn_service.sources.holding import holdings_of
from birnn_service.sources.index import read_index
from birnn_service.sources.source import SourceError, check_address
from birnn_service.sources.store import StoredObject

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["bundles", "aliases", "name"]), inner),
)
CONTENT = st.binary() | JSON.map(lambda value: json.dumps(value).encode())
PATH = st.text(st.sampled_from("ab./\\:~\0é \n"), max_size=12)


@given(CONTENT)
def test_aliases(content: bytes) -> None:
    try:
        aliases = read_aliases(content)
    except SourceError:
        return
    assert all(type(version) is int and version > 0 for version in aliases.values())


@given(CONTENT)
def test_an_index(content: bytes) -> None:
    with pytest.raises(SourceError):
        read_index(content, "a store")


@given(
    st.binary()
    | st.from_regex(r"birnn-signature 1\nkey [0-9a-f]{31,33}\ned25519 [A-Za-z0-9+/=]{80,90}\n?").map(str.encode)
)
def test_a_signature(content: bytes) -> None:
    try:
        signature = Signature.from_bytes(content)
    except BundleError:
        return
    assert len(signature.value) == 64


@given(PATH)
def test_a_file_that_a_manifest_may_list_lies_inside_its_folder(file: str) -> None:
    try:
        inside(file)
    except ValueError:
        return
    folder = Path("/srv/bundle")
    assert (folder / file).as_posix() == f"/srv/bundle/{file}"
    assert ".." not in (folder / file).parts
    there = PureWindowsPath("D:/bundle") / file
    assert there.parts[:2] == ("D:\\", "bundle")
    assert there.as_posix() == f"D:/bundle/{file}"


@given(PATH, PATH)
def test_an_address_that_may_be_fetched_lies_two_levels_below(name: str, version: str) -> None:
    try:
        check_address((name, version), "a folder")
    except SourceError:
        return
    path = Path("/srv/models") / name / version
    assert path.parts == ("/", "srv", "models", name, version)
    assert not {".", ".."} & set(path.parts)


@given(st.lists(st.lists(PATH, min_size=1, max_size=4).map("/".join)))
def test_a_list_of_objects(paths: list[str]) -> None:
    paths += ["a/1/manifest.json"]
    holdings = holdings_of([StoredObject(path, 1, "") for path in paths], "a store")
    assert ("a", "1") in holdings.bundles
    assert all("manifest.json" in holding.parts for holding in holdings.bundles.values())
