"""What the engine process tells a front-end first: what is served, and by which settings.

A front-end reads no models folder. Were a bundle replaced there, a front-end that is started again would tokenize by
another vocabulary than the engine was proven with.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from birnn_bundle.manifest import Manifest
from birnn_bundle.tokenizer import NoTokenizer, Tokenizer, load_tokenizer
from birnn_service.catalog import Catalog, Encoder, Encoders, State, Status, next_instance
from birnn_service.engine.engine import EngineInfo
from birnn_service.settings import Settings
from birnn_service.state import Address
from birnn_service.transports.shared_port import Ports


@dataclass(frozen=True, slots=True, eq=False)
class RemoteEncoder:
    """An encoder whose engine is in another process.

    Attributes:
        instance: Its number in that process.
        row: Where calls to it are counted; see `Statistics`.
    """

    manifest: Manifest
    tokenizer: Tokenizer
    info: EngineInfo
    instance: int = field(default_factory=next_instance)
    row: int = 0


def write_setup(
    encoders: Encoders[Encoder],
    settings: Settings,
    ports: Ports,
    row: Callable[[Encoder], int],
    broken: Mapping[Address, str],
) -> bytes:
    """Describe what is served, for front-ends that listen on `ports`; see `write_encoder` and `write_listing`."""
    content = {
        "settings": {**settings.model_dump(mode="json"), "grpc_port": ports.grpc, "http_port": ports.http},
        "encoders": [_described(encoder, row(encoder)) for encoder in encoders],
        "listing": _listed(encoders, broken),
    }
    return json.dumps(content).encode()


def read_setup(raw: bytes) -> tuple[Catalog[RemoteEncoder], Settings, dict[Address, str]]:
    """What `write_setup` wrote: what is served, settings, and what keeps a server from being ready."""
    content = json.loads(raw)
    settings = Settings(**content["settings"])
    encoders = Catalog([_read(entry) for entry in content["encoders"]], candidates=settings.candidates)
    return encoders, settings, _note(encoders, content["listing"])


def write_encoder(encoder: Encoder, row: int) -> bytes:
    """Describe an encoder and the row in which calls to it are counted."""
    return json.dumps(_described(encoder, row)).encode()


def read_encoder(raw: bytes) -> RemoteEncoder:
    """What `write_encoder` wrote."""
    return _read(json.loads(raw))


def write_listing(encoders: Encoders[Encoder], broken: Mapping[Address, str]) -> bytes:
    """Say what is not served, which aliases there are, and which broken versions keep a server from being ready."""
    return json.dumps(_listed(encoders, broken)).encode()


def note_listing(encoders: Catalog[RemoteEncoder], raw: bytes) -> dict[Address, str]:
    """Note what `write_listing` wrote; returns which broken versions keep a server from being ready."""
    return _note(encoders, json.loads(raw))


def _described(encoder: Encoder, row: int) -> dict[str, Any]:
    return {
        "instance": encoder.instance,
        "row": row,
        "manifest": encoder.manifest.to_json(),
        "tokenizer": encoder.tokenizer.to_json(),
        "info": asdict(encoder.info),
    }


def _read(entry: dict[str, Any]) -> RemoteEncoder:
    manifest = Manifest.from_json(entry["manifest"])
    tokenizer: Tokenizer = NoTokenizer()
    if manifest.tokenizer is not None:
        tokenizer = load_tokenizer(manifest.tokenizer.kind, entry["tokenizer"])
    return RemoteEncoder(manifest, tokenizer, EngineInfo(**entry["info"]), entry["instance"], entry["row"])


def _listed(encoders: Encoders[Encoder], broken: Mapping[Address, str]) -> dict[str, Any]:
    return {
        "statuses": [
            [*address, status.state, status.reason, status.broken] for address, status in encoders.statuses.items()
        ],
        "aliases": {name: dict(aliases) for name, aliases in encoders.aliases.items()},
        "broken": [[*address, reason] for address, reason in broken.items()],
    }


def _note(encoders: Catalog[RemoteEncoder], listing: dict[str, Any]) -> dict[Address, str]:
    statuses = {
        (name, version): Status(State(state), reason, broken)
        for name, version, state, reason, broken in listing["statuses"]
    }
    encoders.note(statuses, listing["aliases"])
    return {(name, version): reason for name, version, reason in listing["broken"]}
