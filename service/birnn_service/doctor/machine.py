"""What the machine grants: cores, memory, files."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from birnn_service.doctor.finding import Finding
from birnn_service.engine.cores import available_cores
from birnn_service.engine.hardware import processor_name
from birnn_service.memory import available_memory

# With less, a server refuses ordinary replies: the largest one is a sixteenth of it.
LITTLE_MEMORY = 512 << 20


def processor() -> Iterator[Finding]:
    """Name of the processor, and how many of its cores may be used."""
    cores, all_cores = available_cores(), os.cpu_count() or 1
    text = f"{processor_name() or platform.machine()}, {cores} of {all_cores} cores may be used"
    cure = "" if cores == all_cores else "affinity or the container's CPU limit hold back the others"
    yield Finding("processor", "ok", text, cure)


def memory() -> Iterator[Finding]:
    """Memory that the machine or the container grants."""
    granted = available_memory()
    text = f"{granted >> 20} MiB may be used by one server (--memory-mib)"
    if granted < LITTLE_MEMORY:
        yield Finding("memory", "note", text, f"give the container at least {LITTLE_MEMORY >> 20} MiB")
    else:
        yield Finding("memory", "ok", text)


def descriptors() -> Iterator[Finding]:
    """How many files a server may open: one for each connection."""
    if sys.platform == "win32":
        return
    import resource

    from birnn_service.descriptors import NEEDED

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        yield Finding("descriptors", "ok", "no limit of open files")
    elif most < NEEDED:
        cure = "raise the hard limit: ulimit -Hn 65536 as root, LimitNOFILE= in systemd, --ulimit nofile= in Docker"
        yield Finding("descriptors", "broken", f"at most {most} open files, a server needs {NEEDED}", cure)
    else:
        yield Finding("descriptors", "ok", f"at most {most} open files, one for each connection")


def folders() -> Iterator[Finding]:
    """Whether there is a folder for temporary files, and one in which measured costs are kept."""
    try:
        with tempfile.NamedTemporaryFile(prefix="birnn-"):
            pass
    except OSError as error:
        cure = "make /tmp writable, or name another folder in TMPDIR; in Docker: --tmpfs /tmp"
        yield Finding("temporary files", "broken", str(error), cure)
    from birnn_service.queueing.profile_cache import default_folder

    cache = default_folder()
    if cache is None or not _is_writable(cache):
        text = f"{cache or 'no home folder'}: each start measures all engines again"
        yield Finding("cache", "note", text, "give the server a folder of its own with --cache-dir")
    else:
        yield Finding("cache", "ok", str(cache))


def shared_memory() -> Iterator[Finding]:
    """Whether front-ends can share memory with the process of the engines; /dev/shm has no part in it."""
    if not hasattr(os, "memfd_create"):
        yield Finding("front-ends", "note", "no memfd_create here: --frontends needs Linux")
        return
    os.close(os.memfd_create("birnn-doctor"))
    yield Finding("front-ends", "ok", "--frontends can be used")


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself, in the first above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)
