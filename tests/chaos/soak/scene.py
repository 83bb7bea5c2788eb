"""A soak under way: a server, groups of callers in processes of their own, and what they have counted."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from click.testing import CliRunner

from birnn_service.token_commands import tokens
from tests.chaos.soak.callers import Settings
from tests.chaos.soak.tally import Tally
from tests.chaos.soak.world import NAME, World
from tests.e2e.server_process import ServerProcess, until


class Group:
    """Callers in a process of their own."""

    def __init__(self, settings: Settings) -> None:
        self.tally = Tally()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.soak.callers", json.dumps(asdict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                self.tally = Tally.read(line)

    def stop(self) -> Tally:
        """Have the last calls end; returns what became of all."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self._reader.join()
        return self.tally

    def kill(self) -> None:
        """End it in the middle of its calls."""
        self.process.kill()
        self.process.wait()
        self._reader.join()


@dataclass
class Scene:
    """What faults work on.

    Attributes:
        world: The files.
        server: The server.
        frontends: How many processes take its calls.
        main: The callers that must not lose a call.
        admin: A token that may do all.
        others: What became of calls of all other groups.
        served: The highest version that is served.
        seed: Of the next group.
    """

    world: World
    server: ServerProcess
    frontends: int
    main: Group
    admin: str
    others: Tally
    served: int = 1
    seed: int = 100

    def settings(self, token: str, callers: dict[str, int], **more: Any) -> Settings:
        """For another group."""
        self.seed += 1
        return group_settings(self.world, self.server, token, self.seed, callers, **more)

    @contextmanager
    def group(self, token: str, callers: dict[str, int], **more: Any) -> Iterator[Group]:
        """Another group, until the end of the block."""
        group = Group(self.settings(token, callers, **more))
        try:
            yield group
        finally:
            if group.process.poll() is None:
                group.stop()
            self.others.add(group.tally)

    def go_on(self, calls: int = 200) -> None:
        """Wait until the main callers have had further answers."""
        goal = self.main.tally.calls["answered"] + calls
        until(lambda: self.main.tally.calls["answered"] >= goal or self.main.process.poll() is not None)
        assert self.main.process.poll() is None, "the callers ended"

    def ready(self, version: int) -> float | None:
        """Whether a version is served, 1 or 0; None where the server does not know of it."""
        wanted = {("encoder", NAME), ("version", str(version))}
        found = [
            value
            for (name, labels), value in self.server.samples().items()
            if name == "birnn_encoder_ready" and wanted <= labels
        ]
        return found[0] if found else None


def group_settings(
    world: World, server: ServerProcess, token: str, seed: int, callers: dict[str, int], **more: Any
) -> Settings:
    """What a group is told."""
    return Settings(
        address=server.address,
        rest=server.rest.rpartition("/")[2],
        ca=world.authority_file,
        vectors=str(world.vectors),
        token=token,
        seed=seed,
        callers=callers,
        **more,
    )


def change_tokens(world: World, *arguments: str) -> str:
    """`birnn tokens`; returns the new token, if there is one."""
    done = CliRunner().invoke(tokens, [*arguments, "--tokens", str(world.tokens)])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()
