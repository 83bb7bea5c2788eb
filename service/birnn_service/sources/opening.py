"""From the setting `models` to the source it means."""

import logging
from importlib import metadata, resources
from pathlib import Path

from birnn_service.errors import StartupError
from birnn_service.queueing.profile_cache import default_folder as user_cache_folder
from birnn_service.sources.bundle_cache import BundleCache
from birnn_service.sources.folder import FolderSource
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import Source
from birnn_service.sources.store import ObjectStore, is_url
from birnn_service.sources.store_source import StoreSource

logger = logging.getLogger(__name__)

# The distribution of the encoders that ship, and the package whose folder they lie in.
DISTRIBUTION, PACKAGE = "birnn-encoders", "birnn_encoders"
HERE = Path("models")


def open_source(models: str | None, options: StoreOptions) -> Source:
    """The source that `models` names: a folder, or a store where it is a URL.

    Args:
        models: As it was asked for; by default `./models` where it exists, else the installed encoders.
        options: Where bundles of a store are kept, and what bounds fetching them.

    Raises:
        StartupError: None was asked for, and there is neither; or the URL cannot be used.
    """
    if models is None:
        folder, why = default_folder()
        logger.info("serving %s", why)
        return FolderSource(folder)
    if not is_url(models):
        return FolderSource(Path(models))
    cache_dir = options.cache_dir or user_cache_folder()
    if cache_dir is None:
        raise StartupError(f"--models {models} needs a folder to keep bundles in: give one with --cache-dir")
    url = models.rstrip("/")
    return StoreSource(ObjectStore(url, options), BundleCache(url, cache_dir, options), options)


def default_folder() -> tuple[Path, str]:
    """The folder that is served where none was asked for, and why this one.

    Raises:
        StartupError: There is none.
    """
    if HERE.is_dir():
        return HERE, f"the folder {HERE.resolve()}, which is here"
    try:
        installed = Path(str(resources.files(PACKAGE)))
    except ModuleNotFoundError:
        raise StartupError(
            f"there are no encoders to serve: give a folder with --models; without it ./{HERE} would be taken, which "
            f"does not exist, or the encoders that ship, which are not installed (pip install {DISTRIBUTION})"
        ) from None
    return installed, f"the installed {DISTRIBUTION} {metadata.version(DISTRIBUTION)}, as there is no ./{HERE} here"
