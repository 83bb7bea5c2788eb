"""The callers of a soak, in a process of their own: each calls all the time, and compares every reply to the bit.

Usage: python -m tests.chaos.soak.callers SETTINGS, which is a JSON object of `Settings`. They call until standard input
ends, and write what has become of the calls to standard output, a line a second and one at the end.
"""

import asyncio
import base64
import http.client
import json
import random
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray

import birnn
from tests.chaos.soak.tally import Tally
from tests.chaos.soak.world import NAME, SEQUENCES, VERSIONS

# A call that takes longer hangs.
PATIENCE_SECONDS = 120.0
STREAMED = 200
# Before a caller that was not answered calls again.
PAUSE_SECONDS = 0.1
REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)


@dataclass(frozen=True)
class Settings:
    """What callers are told.

    Attributes:
        address: Of gRPC.
        rest: HOST:PORT of HTTP.
        ca: File of the authority that signed the server's certificate; empty where there is no TLS.
        vectors: File of the recorded vectors.
        token: What they call with.
        seed: Of what they ask for.
        callers: How many there are of each kind.
        retry_for: Seconds for which gRPC calls are repeated.
        resend: Whether a REST call is sent again, twice at most, when its connection ends without a reply, as HTTP
            clients do. A process that is killed takes its connections along, and may still take one more before it
            stops to listen.
    """

    address: str
    rest: str
    ca: str
    vectors: str
    token: str
    seed: int
    callers: dict[str, int]
    retry_for: float = 60.0
    resend: bool = False


class Callers:
    """All callers of one process."""

    def __init__(self, settings: Settings) -> None:
        recorded = np.load(settings.vectors)
        self._sequences: list[str] = recorded["sequences"].tolist()
        self._vectors: dict[str, NDArray[np.float32]] = {str(version): recorded[str(version)] for version in VERSIONS}
        self._settings = settings
        self._random = random.Random(settings.seed)
        self._ended = asyncio.Event()
        self.tally = Tally()

    async def run(self) -> None:
        """Call until told to stop, then let the last calls end."""
        settings = self._settings
        client = birnn.AsyncClient(
            settings.address,
            tls=birnn.Tls(ca=settings.ca) if settings.ca else None,
            token=settings.token,
            batch_size=64,
            retry_for=settings.retry_for,
        )
        kinds: dict[str, Callable[[], Callable[[], Awaitable[int]]]] = {
            "singles": lambda: lambda: self._call(client, 1),
            "batches": lambda: lambda: self._call(client, self._random.randrange(2, 65)),
            "large": lambda: lambda: self._call(client, SEQUENCES),
            "streams": lambda: lambda: self._stream(client),
            "rest": self._embedder,
        }
        async with client, asyncio.TaskGroup() as group:
            for kind, count in settings.callers.items():
                for _ in range(count):
                    group.create_task(self._go_on(kind, kinds[kind]()))
            group.create_task(self._report())
            await asyncio.to_thread(sys.stdin.read)
            self._ended.set()

    def report(self) -> None:
        """Write what has become of the calls so far."""
        sys.stdout.write(self.tally.write() + "\n")
        sys.stdout.flush()

    async def _report(self) -> None:
        while not self._ended.is_set():
            self.report()
            await asyncio.sleep(1)

    async def _go_on(self, kind: str, call: Callable[[], Awaitable[int]]) -> None:
        """Call all the time, and count what becomes of it."""
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    answered = await call()
            except AssertionError as error:
                self.tally.count("wrong", f"{kind}: {error}")
            except TimeoutError:
                self.tally.count("hung", f"{kind}: no answer in {PATIENCE_SECONDS:g} s")
            except birnn.EncodeError as error:
                self.tally.count("refused" if error.code in REFUSED else "lost", f"{kind}: {error!r}")
                await asyncio.sleep(PAUSE_SECONDS)
            except (OSError, http.client.HTTPException) as error:
                self.tally.count("lost", f"{kind}: {error!r}")
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self.tally.calls["answered"] += answered
                self.tally.kinds[kind] += answered

    async def _call(self, client: birnn.AsyncClient, count: int) -> int:
        """Encode some sequences; returns the requests that it took."""
        rows = self._random.sample(range(SEQUENCES), count)
        reply = await client.call([self._sequences[row] for row in rows], NAME)
        self._check(rows, reply.version, reply.vectors)
        return len(reply.timings)

    async def _stream(self, client: birnn.AsyncClient) -> int:
        rows = [self._random.randrange(SEQUENCES) for _ in range(STREAMED)]
        first = answered = 0
        try:
            async for part in client.stream([self._sequences[row] for row in rows], NAME):
                self._check(rows[first : first + len(part)], part.version, part.vectors)
                first += len(part)
                answered += len(part.timings)
        except birnn.VersionGoneError:
            # That is what a stream says if its version is unloaded before its last part.
            return answered
        assert first == len(rows), f"a stream of {len(rows)} sequences gave {first} vectors"
        return answered

    def _embedder(self) -> Callable[[], Awaitable[int]]:
        """Embeds over a connection of its own."""
        host, _, port = self._settings.rest.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_SECONDS)
        if self._settings.ca:
            context = ssl.create_default_context(cafile=self._settings.ca)
            connection = http.client.HTTPSConnection(host, int(port), timeout=PATIENCE_SECONDS, context=context)

        def post(body: bytes, attempts: int) -> tuple[int, bytes]:
            headers = {"Authorization": f"Bearer {self._settings.token}", "Content-Type": "application/json"}
            try:
                connection.request("POST", "/v1/embeddings", body, headers)
                reply = connection.getresponse()
                return reply.status, reply.read()
            except (ConnectionError, http.client.HTTPException):
                connection.close()
                if attempts == 1:
                    raise
                return post(body, attempts - 1)
            except BaseException:
                connection.close()
                raise

        async def embed() -> int:
            rows = self._random.sample(range(SEQUENCES), self._random.randrange(1, 9))
            asked = {"model": NAME, "input": [self._sequences[row] for row in rows], "encoding_format": "base64"}
            status, content = await asyncio.to_thread(post, json.dumps(asked).encode(), 1 + 2 * self._settings.resend)
            if status != 200:
                self.tally.count("refused" if status in (401, 429) else "lost", f"rest: {status} {content[:200]!r}")
                await asyncio.sleep(PAUSE_SECONDS)
                return 0
            self._check_any(rows, json.loads(content))
            return 1

        return embed

    def _check_any(self, rows: list[int], reply: Any) -> None:
        """Compare the embeddings of a reply, which does not say of which version it is: all must be of one."""
        vectors = np.stack([np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in reply["data"]])
        for version, expected in self._vectors.items():
            if np.array_equal(vectors[0], expected[rows[0]]):
                self._check(rows, version, vectors)
                return
        raise AssertionError("an embedding is of no version")

    def _check(self, rows: list[int], version: str, vectors: NDArray[np.float32]) -> None:
        """Compare vectors to the bit with those of the version that they are said to be from."""
        expected = self._vectors.get(version)
        assert expected is not None, f"a reply of version {version!r}"
        equal = vectors.shape == (len(rows), expected.shape[1]) and np.array_equal(vectors, expected[rows])
        assert equal, f"vectors of version {version} differ from those that were recorded"
        self.tally.versions[version] += len(rows)


async def _main(settings: Settings) -> None:
    callers = Callers(settings)
    await callers.run()
    callers.report()


if __name__ == "__main__":
    uvloop.run(_main(Settings(**json.loads(sys.argv[1]))))
