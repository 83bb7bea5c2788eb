"""The folder of encoders: which one is served, and the bundles in it."""

from importlib import metadata, resources
from pathlib import Path

from birnn_bundle.manifest import MANIFEST_FILE
from birnn_service.errors import StartupError

# The distribution of the encoders that ship, and the package whose folder they lie in.
DISTRIBUTION, PACKAGE = "birnn-encoders", "birnn_encoders"
HERE = Path("models")


def choose_models(given: Path | None) -> tuple[Path, str]:
    """The models folder, and why this one.

    Args:
        given: The one that was asked for; by default `./models` where it exists, else the installed encoders.

    Raises:
        StartupError: None was asked for, and there is neither.
    """
    if given is not None:
        return given, "asked for"
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


def find_bundles(models: Path) -> list[Path]:
    """Folders NAME/VERSION below `models` that hold a manifest.

    Raises:
        StartupError: There is none.
    """
    if not models.is_dir():
        raise StartupError(f"the models folder {models} does not exist; give one with --models")
    paths = sorted(manifest.parent for manifest in models.glob(f"[!.]*/[!.]*/{MANIFEST_FILE}"))
    if not paths:
        raise StartupError(f"no encoder in {models}: {_expectation(models)}")
    return paths


def _expectation(models: Path) -> str:
    """What a folder without bundles should have been."""
    deeper = {"is a bundle": MANIFEST_FILE, "is the folder of one encoder's versions": f"[!.]*/{MANIFEST_FILE}"}
    for above, (what, pattern) in enumerate(reversed(deeper.items())):
        if any(models.glob(pattern)):
            return f"it {what}; give the folder above: --models {models.resolve().parents[above]}"
    return f"expected {models}/NAME/VERSION/{MANIFEST_FILE}, as `birnn export` writes them"
