"""What the engine process tells a front-end first: what is served, and by which settings.

A front-end reads no models folder. Were a bundle replaced there, a front-end that is started again would tokenize by
another vocabulary than the engine was proven with.
"""

import json
from dataclasses import asdict, dataclass

from birnn_bundle.manifest import Manifest
from birnn_bundle.tokenizer import NoTokenizer, Tokenizer, load_tokenizer
from birnn_service.catalog import Encoder, Encoders
from birnn_service.engine.engine import EngineInfo
from birnn_service.settings import Settings
from birnn_service.transports.shared_port import Ports


@dataclass(frozen=True, slots=True, eq=False)
class RemoteEncoder:
    """An encoder whose engine is in another process."""

    manifest: Manifest
    tokenizer: Tokenizer
    info: EngineInfo


def write_setup(encoders: Encoders[Encoder], settings: Settings, ports: Ports) -> bytes:
    """Describe what is served, for front-ends that listen on `ports`."""
    content = {
        "settings": {**settings.model_dump(mode="json"), "grpc_port": ports.grpc, "http_port": ports.http},
        "encoders": [
            {
                "manifest": encoder.manifest.to_json(),
                "tokenizer": encoder.tokenizer.to_json(),
                "info": asdict(encoder.info),
            }
            for encoder in encoders
        ],
        "broken": [[name, version, reason] for (name, version), reason in encoders.broken.items()],
    }
    return json.dumps(content).encode()


def read_setup(raw: bytes) -> tuple[Encoders[RemoteEncoder], Settings]:
    """What `write_setup` wrote."""
    content = json.loads(raw)
    served = []
    for entry in content["encoders"]:
        manifest = Manifest.from_json(entry["manifest"])
        tokenizer: Tokenizer = NoTokenizer()
        if manifest.tokenizer is not None:
            tokenizer = load_tokenizer(manifest.tokenizer.kind, entry["tokenizer"])
        served.append(RemoteEncoder(manifest, tokenizer, EngineInfo(**entry["info"])))
    broken = {(name, version): reason for name, version, reason in content["broken"]}
    return Encoders(served, broken), Settings(**content["settings"])
