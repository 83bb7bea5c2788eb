"""What a source needs of the settings where its bundles are fetched over a network."""

from dataclasses import dataclass
from pathlib import Path

from birnn_bundle.bundle import MOST_BUNDLE_BYTES


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where fetched bundles are kept, and what bounds fetching them.

    Attributes:
        cache_dir: Folder of the cache; None where there is none, and nothing can be fetched.
        max_bundle_bytes: Most bytes of all files of one bundle.
        stall_seconds: How long a store may send nothing.
        most_seconds: How long a look at a store may take, and the fetching of one bundle.
    """

    cache_dir: Path | None = None
    max_bundle_bytes: int = MOST_BUNDLE_BYTES
    stall_seconds: float = 20.0
    most_seconds: float = 600.0
