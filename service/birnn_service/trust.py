"""Whose bundles are served: the keys of `--trust`."""

from pathlib import Path

from birnn_bundle.signature import KeyFileError, TrustedKeys
from birnn_service.errors import StartupError


def read_trust(path: Path | None) -> TrustedKeys | None:
    """The keys of a file, as it is now; None where bundles need no signature.

    Raises:
        StartupError: The file cannot be used.
    """
    if path is None:
        return None
    try:
        return TrustedKeys.read(path)
    except KeyFileError as error:
        raise StartupError(f"cannot use --trust: {error}") from error
