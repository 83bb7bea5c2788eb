"""Writing a folder as a whole or not at all."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from birnn_bundle.atomic_file import flush_folder, removed_on_signals


@contextmanager
def replacing_folder(destination: Path, check: Callable[[], None]) -> Iterator[Path]:
    """A temporary folder beside `destination` that takes its place if all goes well; otherwise nothing is left of it.

    Args:
        destination: What to write; folders above it are made. A folder that stands there is removed.
        check: Raises where what stands there now must not be replaced; called just before it would be.

    Raises:
        OSError: The folder cannot be written.
    """
    created = [parent for parent in destination.parents if not parent.exists()]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as temporary:
            folder, old = Path(temporary, "new"), Path(temporary, "old")
            # Inside the temporary folder, which only its owner may enter: a bundle is for everybody.
            folder.mkdir()
            with removed_on_signals(Path(temporary)):
                yield folder
                flush_folder(folder)
            check()
            if destination.exists():
                destination.rename(old)
            try:
                folder.rename(destination)
            except OSError:
                if old.exists():
                    old.rename(destination)
                raise
    except BaseException:
        for parent in created:
            # Another process may have put something there in the meantime.
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
        raise
