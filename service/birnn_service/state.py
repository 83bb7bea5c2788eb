"""Whether this process serves, and why not: written where something changes, and read by everybody who is asked."""

import asyncio
import enum
from collections.abc import Mapping

Address = tuple[str, str]
"""Name and version of an encoder."""


class Phase(enum.Enum):
    """Where in its life a server is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class ServingState:
    """The phase of this process, what is wrong with each encoder, and what else keeps it from being ready.

    It is written on the event loop. Other threads may read it.
    """

    def __init__(self) -> None:
        self._phase = Phase.STARTING
        self._broken: Mapping[Address, str] = {}
        self._unhealthy: Mapping[Address, str] = {}
        self._obstacles: dict[str, str] = {}
        self._change = asyncio.Event()
        self._closed = False

    @property
    def draining(self) -> bool:
        """Whether a shutdown is under way."""
        return self._phase is Phase.DRAINING

    @property
    def closed(self) -> bool:
        """Whether a shutdown ends, so that the state will not change any more."""
        return self._closed

    @property
    def unhealthy(self) -> Mapping[Address, str]:
        """Why encoders that are served have failed to prove themselves."""
        return self._unhealthy

    @property
    def broken(self) -> Mapping[Address, str]:
        """Why versions are not served without which the server is not ready."""
        return self._broken

    @property
    def ready(self) -> bool:
        """Whether the necessary encoders are served and healthy, connections accepted, and no shutdown is under way."""
        return not self.reason

    @property
    def obstacle(self) -> str:
        """What else than encoders and its phase keeps this process from being ready; empty for nothing."""
        return next(iter(self._obstacles.values()), "")

    @property
    def live(self) -> bool:
        """Whether the engines work; if not, a restart may help."""
        return not self._unhealthy

    @property
    def reason(self) -> str:
        """Why it is not ready; empty where it is."""
        if self._phase is not Phase.READY:
            return str(self._phase.value)
        for (name, version), reason in (*self._broken.items(), *self._unhealthy.items()):
            return f"encoder {name}/{version}: {reason}"
        return self.obstacle

    def serves(self, name: str, version: str) -> bool:
        """Whether a call to an encoder that is served would be answered."""
        return self._phase is Phase.READY and (name, version) not in self._unhealthy

    def start(self) -> None:
        """Calls are taken from now on."""
        self._phase = Phase.READY
        self._changed()

    def set_broken(self, broken: Mapping[Address, str]) -> None:
        """Note the versions without which the server is not ready, and why each of them is not served."""
        if broken != self._broken:
            self._broken = dict(broken)
            self._changed()

    def drain(self) -> None:
        """A shutdown begins."""
        self._phase = Phase.DRAINING
        self._changed()

    def close(self) -> None:
        """The shutdown ends: the state need not be followed any longer."""
        self._closed = True
        self._changed()

    def set_unhealthy(self, unhealthy: Mapping[Address, str]) -> None:
        """Note all encoders that have failed to prove themselves, and why."""
        if unhealthy != self._unhealthy:
            self._unhealthy = dict(unhealthy)
            self._changed()

    def set_obstacle(self, source: str, reason: str) -> None:
        """Note what keeps this process from being ready, by who noticed it; an empty reason takes it back."""
        if self._obstacles.get(source, "") == reason:
            return
        # Other threads may be reading the old one.
        self._obstacles = {**self._obstacles, source: reason}
        if not reason:
            del self._obstacles[source]
        self._changed()

    @property
    def next_change(self) -> asyncio.Event:
        """Set when the state changes next. To follow the state, take this first, then look, then wait."""
        return self._change

    def _changed(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()
