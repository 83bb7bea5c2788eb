"""A store that is gone: what was fetched of it is served, and nothing else."""

from pathlib import Path

import pytest

from birnn_service.sources.source import SourceError
from birnn_service.sources.store import UnreachableError
from tests.service.sources.object_server import ObjectServer
from tests.service.sources.small_bundle import SMALL, looked, opened

pytest.importorskip("obstore", reason="needs the extra `sources`")


def test_without_its_store_a_source_serves_what_was_fetched(server: ObjectServer, tmp_path: Path) -> None:
    server.objects["smiles-small/aliases.json"] = b'{"stable": 1}'
    first = opened(tmp_path)
    seen = first.look()
    path = first.fetch(SMALL)
    server.status[""] = 503
    second = opened(tmp_path)
    look = second.look()
    assert "503" in look.stale
    assert "using the 1 bundles of it in the cache" in look.stale
    assert (look.bundles, look.aliases) == (seen.bundles, seen.aliases)
    assert second.fetch(SMALL) == path
    server.status.clear()
    assert second.look().stale == ""


def test_without_its_store_and_without_a_cache_there_is_nothing(server: ObjectServer, tmp_path: Path) -> None:
    server.status[""] = 503
    with pytest.raises(UnreachableError, match=r"cannot read its list of objects.*--source-stall-seconds.*503"):
        opened(tmp_path).look()


def test_a_store_that_is_gone_after_the_look_is_not_needed_for_what_was_fetched(
    server: ObjectServer, tmp_path: Path
) -> None:
    source = looked(tmp_path)
    path = source.fetch(SMALL)
    server.status = dict.fromkeys(server.objects, 503)
    source.look()
    assert source.fetch(SMALL) == path


def test_a_store_that_refuses_is_not_one_that_is_gone(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
    source.fetch(SMALL)
    server.status[""] = 403
    with pytest.raises(
        SourceError, match=r"refuses access to its list of objects; check the credentials.*AWS_\*"
    ) as error:
        opened(tmp_path).look()
    assert not isinstance(error.value, UnreachableError)
    server.status[""] = 404
    with pytest.raises(SourceError, match=r"(does not give|holds no) .*its list of objects") as error:
        opened(tmp_path).look()
    assert not isinstance(error.value, UnreachableError)


def test_a_bundle_that_the_store_no_longer_holds_is_not_served_without_it(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
    source.fetch(SMALL)
    server.objects = {"other/1/manifest.json": b"{}"}
    source.look()
    server.status[""] = 503
    with pytest.raises(UnreachableError):
        opened(tmp_path, stall_seconds=1).look()
