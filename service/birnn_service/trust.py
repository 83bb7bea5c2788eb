"""Whose bundles are served: the keys of `--trust`."""

from pathlib import Path

from birnn_bundle.bundle import Trust
from birnn_service.errors import StartupError


def read_trust(path: Path | None) -> Trust | None:
    """The keys of a file, as it is now; None where bundles need no signature.

    Raises:
        StartupError: The file cannot be used, or cryptography is not installed.
    """
    if path is None:
        return None
    try:
        from birnn_bundle.signature import KeyFileError, TrustedKeys
    except ModuleNotFoundError as error:
        raise StartupError(
            f"--trust needs the Python package {error.name!r}, which is not installed: "
            "pip install 'birnn-serving[service]'"
        ) from None
    try:
        return TrustedKeys.read(path)
    except KeyFileError as error:
        raise StartupError(f"cannot use --trust: {error}") from error
