"""What a soak is made of: versions of one encoder, the vectors that each of them must give, and what a server needs."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_service.engine.engine import Output
from birnn_service.engine.loading import load_engine
from tests.certificates import Authority, Mount
from tests.e2e.molecules import molecules
from tests.service.engine.bundles import version_of

NAME = "soak"
VERSIONS = (1, 2, 3)
SEQUENCES = 500
# Of a batch with which vectors are recorded.
ROWS = 32
SIZES = {"embedding_size": 32, "hidden_size": 64}
# Weights of each version, so that no two give the same vectors.
LARGEST = {1: 0.2, 2: 0.3, 3: 0.4}


@dataclass(frozen=True)
class World:
    """Files of a soak.

    Attributes:
        folder: Where they are.
        stash: Bundles of all versions, which are not served from here.
        models: The folder that is served.
        authority: Signs the certificates.
        mount: The server's certificate.
        tokens: The file of tokens.
        tls: Whether the server's ports have TLS.
    """

    folder: Path
    stash: Path
    models: Path
    authority: Authority
    mount: Mount
    tokens: Path
    tls: bool

    @property
    def authority_file(self) -> str:
        """The authority's certificate, by which clients know the server; empty where there is no TLS."""
        return str(self.authority.cert) if self.tls else ""

    @property
    def vectors(self) -> Path:
        """float32 [SEQUENCES, D] by version, as the engine gives them by itself, and the sequences."""
        return self.folder / "vectors.npz"

    def served(self, version: int) -> Path:
        """The folder of a version that is served."""
        return self.models / NAME / str(version)

    def publish(self, version: int, change: Callable[[Path], object] = lambda folder: None) -> None:
        """Have a version served: copied beside the models, changed, then renamed, in place of one that is there."""
        copy, old = self.models / NAME / f".new-{version}", self.models / NAME / f".old-{version}"
        shutil.copytree(self.stash / NAME / str(version), copy)
        change(copy)
        if self.served(version).exists():
            self.served(version).rename(old)
        copy.rename(self.served(version))
        shutil.rmtree(old, ignore_errors=True)

    def withdraw(self, version: int) -> None:
        """Have a version served no longer."""
        gone = self.models / NAME / f".gone-{version}"
        self.served(version).rename(gone)
        shutil.rmtree(gone)


def make_world(folder: Path, *, tls: bool) -> World:
    """Make all files; version 1 is in the folder that is served."""
    sequences = molecules(SEQUENCES)
    found: dict[str, NDArray[Any]] = {"sequences": np.array(sequences)}
    for version in VERSIONS:
        bundle = version_of(folder / "stash", NAME, version, LARGEST[version], sequences, **SIZES)
        engine = load_engine(bundle, "cpu").engine
        # The kernels give the same bits in any batch; onnxruntime does not.
        assert engine.info.engine.startswith("native"), "a soak needs the native kernels"
        batch = bundle.tokenizer.tokenize(sequences, bundle.manifest.max_length).batch
        assert len(batch) == SEQUENCES
        rows = np.array_split(np.arange(SEQUENCES), SEQUENCES // ROWS + 1)
        found[str(version)] = np.concatenate([engine.run(batch.take(part), Output.POOLED) for part in rows])
    authority = Authority(folder)
    mount = Mount(folder / "mount", authority.issue("server"))
    world = World(folder, folder / "stash", folder / "models", authority, mount, folder / "tokens.jsonl", tls)
    np.savez(world.vectors, **found)  # type: ignore[arg-type] # mypy takes the names for options
    (world.models / NAME).mkdir(parents=True)
    world.publish(1)
    return world
