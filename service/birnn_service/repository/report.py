"""The report: what callers, probes and metrics are told of every version."""

from collections.abc import Iterable, Iterator

from birnn_bundle.quoting import one_line, told
from birnn_service.catalog import Catalog, State, Status, address_of
from birnn_service.observe.metrics import Metrics
from birnn_service.repository.inventory import Inventory
from birnn_service.repository.publisher import Publisher
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.repository.version import Version
from birnn_service.settings import Settings
from birnn_service.state import Address, ServingState


class Report:
    """Reports the state of all versions that were found."""

    def __init__(
        self,
        inventory: Inventory,
        settings: Settings,
        encoders: Catalog[ServedEncoder],
        publisher: Publisher,
        state: ServingState,
        metrics: Metrics,
    ) -> None:
        """Report on `inventory`.

        Args:
            inventory: The versions.
            settings: When the server is ready, and why versions are left out.
            encoders: Where callers look versions up.
            publisher: Knows what is being unloaded, and tells other processes.
            state: Where versions are noted without which the server is not ready.
            metrics: Where versions are noted that are not served.
        """
        self._inventory = inventory
        self._settings = settings
        self._encoders = encoders
        self._publisher = publisher
        self._state = state
        self._metrics = metrics
        # Names found at the start that have had no good version yet.
        self._awaited: set[str] = set()
        # What was said everywhere last.
        self._noted: object = None

    def await_good(self, names: Iterable[str]) -> None:
        """The server is not ready before each of these encoders has had a good version, or is gone."""
        self._awaited = set(names)

    def note_good(self, name: str) -> None:
        """An encoder has a good version."""
        self._awaited.discard(name)

    def note(self) -> None:
        """Report the state of every version."""
        unloading = Status(State.UNLOADING, "it is being unloaded")
        statuses = {address_of(encoder): unloading for encoder in self._publisher.unloading}
        for version, status in self._said():
            name, number = map(told, version.address)
            statuses[name, number] = status
        self._awaited &= {name for name, _ in self._inventory.versions}
        broken = self._kept_unready()
        if (said := (statuses, self._inventory.aliases, broken)) == self._noted:
            return
        self._noted = said
        self._encoders.note(statuses, self._inventory.aliases)
        self._state.set_broken(broken)
        self._publisher.list()

    def _said(self) -> Iterator[tuple[Version, Status]]:
        """What there is to say of versions that are not simply served."""
        wanted = set(self._inventory.wanted())
        for version in self._inventory.versions.values():
            if version.loading and version.encoder is None:
                yield version, Status(State.LOADING)
            elif version.error and not version.unloaded:
                if version.encoder is None:
                    self._metrics.encoder_ready.labels(*map(told, version.address)).set(0)
                    yield version, Status(State.UNAVAILABLE, version.error, broken=True)
                else:
                    yield version, Status(State.READY, f"its newer files are not served: {version.error}", broken=True)
            elif version.encoder is None and version.unloaded:
                yield version, Status(State.UNAVAILABLE, "it was unloaded by an order")
            elif version.encoder is None and version in wanted:
                yield version, Status(State.LOADING, "" if version.is_settled else "its files have just changed")
            elif version.encoder is None:
                rule = self._settings.version_policy.of(version.address[0])
                yield version, Status(State.UNAVAILABLE, f"--versions leaves it out ({one_line(rule.text, 100)})")

    def _kept_unready(self) -> dict[Address, str]:
        """Versions without which the server is not ready, and why they are not served."""
        strict = self._settings.readiness == "strict"
        return {
            (told(version.address[0]), told(version.address[1])): version.error
            for version in self._inventory.wanted()
            if version.error and (strict or version.address[0] in self._awaited)
        }
