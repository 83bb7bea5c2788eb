"""Tries bundles in a process of their own, within limits, before this one loads them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from birnn_bundle.errors import BundleError
from birnn_service.repository.background import in_background
from birnn_service.settings import Settings
from birnn_service.state import Address

# What the process gets of this one's environment: nothing that could be a secret.
ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "XDG_CACHE_HOME")
# Of an answer.
MOST_BYTES = 64 << 10
SHORTEST_WAIT_SECONDS = 0.05


class Prover:
    """Proves bundles one after another. The process is started when it is needed, and anew after a bundle ended it."""

    def __init__(self, settings: Settings, *, niceness: int) -> None:
        """Prove by the settings, at a niceness on Linux."""
        self._settings = settings
        self._niceness = niceness
        self._process: _Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        await self._end()

    async def prove(self, path: Path, address: Address) -> str:
        """Try a bundle.

        Returns:
            The digest of its manifest.

        Raises:
            BundleError: It is no good, takes too long or too much memory, or crashes.
        """
        async with self._turn:
            asking = asyncio.create_task(self._ask(path, address))
            try:
                await self._watch(asking)
                return self._read(asking.result())
            except asyncio.CancelledError:
                # It still works on a request that was given up.
                asking.cancel()
                await self._end()
                raise

    async def _watch(self, asking: "asyncio.Task[bytes]") -> None:
        """Wait for an answer for as long as a bundle may take; raises BundleError if there is none by then.

        Time in which other processes had all cores does not count: on a busy machine a good bundle needs many times as
        long, and a bundle that hangs uses no core, or has one.
        """
        clock = asyncio.get_running_loop().time
        start, starved, limit = clock(), self._starved(), self._settings.load_seconds
        left = limit
        while left > 0:
            await asyncio.wait((asking,), timeout=max(left, SHORTEST_WAIT_SECONDS))
            if asking.done():
                return
            left = limit - (clock() - start - (self._starved() - starved))
        asking.cancel()
        await self._end()
        raise BundleError(
            f"it was not loaded after {limit:g} s; if that is right for it, allow more with --load-seconds"
        )

    def _starved(self) -> float:
        """Seconds for which the process has waited for a core; 0 where the system does not say."""
        if self._process is None:
            return 0.0
        try:
            return int(Path(f"/proc/{self._process.pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    async def _ask(self, path: Path, address: Address) -> bytes:
        process = self._process or await self._start()
        await process.send([str(path), *address])
        try:
            answer = await process.reader.readline()
        except (ValueError, ConnectionError):  # longer than any answer; or reset
            answer = b""
        if not answer.endswith(b"\n"):
            raise BundleError(await self._how_it_ended(process))
        return answer

    def _read(self, answer: bytes) -> str:
        found = json.loads(answer)
        if "digest" in found:
            return str(found["digest"])
        raise BundleError(str(found["error"]) if "error" in found else f"it takes {self._memory_limit}")

    async def _start(self) -> "_Process":
        self._process = process = await _Process.start()
        await process.send(
            {
                "settings": self._settings.model_dump(mode="json"),
                "memory": self._settings.load_memory_bytes,
                "niceness": self._niceness,
            }
        )
        return process

    async def _how_it_ended(self, process: "_Process") -> str:
        self._process = None
        code = await process.end()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"it ended the process that tried it ({how}); perhaps it takes {self._memory_limit}"

    @property
    def _memory_limit(self) -> str:
        return f"more memory than {self._settings.load_memory_bytes >> 20} MiB to load (--load-memory-mib)"

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.end()


class _Process:
    """The process, and the socket that is its input and output."""

    def __init__(self, process: "subprocess.Popen[bytes]", reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._process = process
        self.reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> Self:
        """Start one.

        Not by the event loop: uvloop forks, and gRPC's handlers then run in the copy of a process with many threads,
        which sometimes ends in a crash. `subprocess` has the new program begin at once.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            # It returns once the new program runs, after a millisecond.
            process = subprocess.Popen(  # noqa: ASYNC220
                (sys.executable, "-P", "-m", "birnn_service.repository.prove"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env={
                    **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                    # Threads have stacks and buffers, which count.
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    # What this process can import, that one can, from wherever it was started.
                    "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                },
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MOST_BYTES)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def send(self, what: object) -> None:
        """Send it a line of JSON. Of a process that has ended, the missing answer tells."""
        # uvloop has an error of its own for a socket that is closed.
        with suppress(ConnectionError, RuntimeError):
            self._writer.write(json.dumps(what).encode() + b"\n")
            await self._writer.drain()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def end(self) -> int:
        """Close its input, and wait for its end; returns its exit status."""
        self._writer.close()
        return await in_background(self._process.wait, niceness=0)
