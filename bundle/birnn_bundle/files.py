"""Reading the files of a bundle: each of them once, into memory, and only regular files inside its folder."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from birnn_bundle.errors import BundleError
from birnn_bundle.quoting import told

MOST_FOLDERS = 1000
# Beside the manifest, which cannot list it, as it is written later.
SIGNATURE_FILE = "manifest.sig"
MOST_SIGNATURE_BYTES = 4096
# A FIFO or a terminal would otherwise make the process that opens it wait. Windows has neither flag, and needs the
# third.
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def read_file(folder: Path, name: str, limit: int, *, hint: str = "") -> bytes:
    """Content of one file of a bundle.

    Args:
        folder: Folder of the bundle.
        name: Path of the file in it.
        limit: Most bytes.
        hint: What to do about a larger one.

    Raises:
        BundleError: It is missing, lies outside the folder, is not a regular file, is too large or cannot be read.
    """
    target = folder / name
    try:
        if not target.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{told(name)} is a link to a place outside the bundle")
        # Looked at before it is opened: to open a device can do something already.
        _check_regular(target.stat(), name)
        with open(os.open(target, _OPEN), "rb") as file:
            found = os.fstat(file.fileno())
            _check_regular(found, name)
            if found.st_size > limit:
                raise BundleError(f"{told(name)} has {found.st_size} bytes, {limit} at most expected{hint}")
            content = file.read(found.st_size + 1)
    except FileNotFoundError:
        raise BundleError(f"{told(name)} is missing; copy the bundle again or export it anew") from None
    except OSError as error:
        raise BundleError(f"cannot read {told(name)}: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # a loop of links; a name that no file can have
        raise BundleError(f"cannot read {told(name)}: {error}") from error
    if len(content) != found.st_size:
        raise BundleError(f"{told(name)} changed while it was read; wait until the bundle is complete")
    return content


def read_files(folder: Path, digests: Mapping[str, str], limit: int) -> dict[str, bytes]:
    """Contents of all files of a bundle but the manifest, checked against their digests.

    The bytes that were hashed are the bytes that everybody then reads: what happens to the files later changes nothing.

    Args:
        folder: Folder of the bundle.
        digests: SHA-256 of each file, in hex.
        limit: Most bytes of all of them together.

    Raises:
        BundleError: Names the first file that cannot be read or was changed.
    """
    contents: dict[str, bytes] = {}
    left = limit
    hint = f" (all files together may have {limit >> 20} MiB); allow more with --max-bundle-mib"
    for name, digest in digests.items():
        contents[name] = read_file(folder, name, left, hint=hint)
        left -= len(contents[name])
        found = sha256(contents[name])
        if found != digest:
            raise BundleError(
                f"{told(name)} was changed or cut short after the bundle was written (sha256 {found[:12]}..., "
                f"manifest {digest[:12]}...); copy the bundle again or export it anew"
            )
    return contents


def check_listed(folder: Path, listed: set[str]) -> None:
    """Check that a bundle's folder holds no file but the listed ones; links to folders are not followed.

    Raises:
        BundleError: Names the first file that is not listed.
    """
    for count, (place, folders, names) in enumerate(os.walk(folder)):
        if count > MOST_FOLDERS:
            raise BundleError(f"the bundle has more than {MOST_FOLDERS} folders")
        folders.sort()
        for name in sorted(names):
            found = (Path(place) / name).relative_to(folder).as_posix()
            if found not in listed:
                raise BundleError(f"{told(found)} is not listed in the manifest; remove it or export the bundle anew")


def sha256(content: bytes) -> str:
    """SHA-256 of a content, in hex."""
    return hashlib.sha256(content).hexdigest()


def _check_regular(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{told(name)} is not a regular file; copy the bundle again or export it anew")
