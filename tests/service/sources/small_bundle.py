"""One small bundle, in a store and in the cache."""

import json
from pathlib import Path

from birnn_bundle.files import sha256
from birnn_service.sources.opening import open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import Source
from tests.service.sources.object_server import BUCKET, ObjectServer

SMALL = ("smiles-small", "1")
PLACE = "/".join(SMALL)
SMALL_FILES = Path(__file__).parents[3] / "models" / PLACE


def opened(tmp_path: Path, **options: float) -> Source:
    """The source, as a process would open it."""
    limits = {"stall_seconds": 20.0, "most_seconds": 120.0, **options}
    return open_source(f"s3://{BUCKET}", StoreOptions(tmp_path / "cache", **limits))  # type: ignore[arg-type]


def looked(tmp_path: Path, **options: float) -> Source:
    """The source, after its first look."""
    source = opened(tmp_path, **options)
    source.look()
    return source


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_is_kept(tmp_path: Path) -> bool:
    """Whether the cache holds no content, and nothing unfinished."""
    cache = tmp_path / "cache"
    return not [*cache.glob("bundles/*/contents/*"), *cache.glob("bundles/*/.unfinished*")]


def change_card(server: ObjectServer, content: bytes) -> None:
    """Another good bundle under the same name."""
    manifest = json.loads(server.objects[f"{PLACE}/manifest.json"])
    manifest["files"]["README.md"] = sha256(content)
    server.objects[f"{PLACE}/README.md"] = content
    server.objects[f"{PLACE}/manifest.json"] = json.dumps(manifest).encode()
