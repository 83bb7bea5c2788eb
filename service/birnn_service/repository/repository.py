"""The repository: what a source holds, what of it is served, and every step from the one to the other."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from birnn_bundle.errors import BundleError, is_refusal
from birnn_bundle.quoting import one_line, shown, told
from birnn_service.catalog import Catalog, State, Status, address_of, label_of
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.errors import (
    BrokenEncoderError,
    OverloadedError,
    StartupError,
    UnavailableError,
    UnknownEncoderError,
)
from birnn_service.memory import give_back_memory
from birnn_service.memory_budget import RETRY_SECONDS
from birnn_service.metrics import Metrics
from birnn_service.repository.background import NICENESS, in_background
from birnn_service.repository.loading import load_encoder, reason_of, warn_without_kernels
from birnn_service.repository.prover import Prover
from birnn_service.repository.publisher import Publisher
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.repository.version import SETTLED_LOOKS, Version
from birnn_service.settings import Settings
from birnn_service.sources.source import Look, Source, SourceError, shown_address
from birnn_service.state import Address, ServingState

logger = logging.getLogger(__name__)

# Orders to load that may wait for their turn, from all front-ends together.
MOST_WAITING = 32


class Repository:
    """Serves the versions that the settings and operators want, of those that the source holds and that prove good.

    It lives on the event loop. Versions are loaded one after another; while calls are served, with little right to the
    cores. Every version is first tried in a process of its own.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        encoders: Catalog[ServedEncoder],
        publisher: Publisher,
        state: ServingState,
        metrics: Metrics,
    ) -> None:
        """Serve from `source`.

        Args:
            source: Where versions come from.
            settings: Which are wanted, and how they are loaded.
            encoders: What is served.
            publisher: Puts encoders into service and takes them out of it.
            state: Where versions are noted without which the server is not ready.
            metrics: Where loads are counted.
        """
        self._source = source
        self._settings = settings
        self._gpu_memory = GpuMemory(settings.gpu_memory_mib)
        self._encoders = encoders
        self._publisher = publisher
        self._state = state
        self._metrics = metrics
        self._versions: dict[Address, Version] = {}
        self._aliases: Mapping[str, Mapping[str, int]] = {}
        self._problems: Mapping[str, str] = {}
        self._outage = ""
        # What was said everywhere last.
        self._noted: object = None
        # Names found at the start that have had no good version yet.
        self._awaited: set[str] = set()
        # One change of what is loaded at a time.
        self._turn = asyncio.Lock()
        self._waiting = 0
        # The order to load that has the turn, or had it last.
        self._order: asyncio.Task[None] | None = None
        # Sources are asked for one bundle at a time.
        self._fetching = asyncio.Lock()
        self._candidates = {(name, int(version)) for name, version in settings.candidates}
        self._proofs: dict[Address, asyncio.Task[tuple[Path, str]]] = {}
        self._unloading: dict[ServedEncoder, asyncio.Task[None]] = {}
        self._tidying: set[asyncio.Task[None]] = set()
        self._niceness = 0

    @property
    def is_loading(self) -> bool:
        """Whether a version is being loaded, on a thread that cannot be stopped."""
        return any(version.loading for version in self._versions.values())

    async def start(self) -> None:
        """Load what is wanted of what there is; what is broken is reported, and the rest is served.

        Raises:
            StartupError: There is nothing, or nothing of it can be served.
        """
        try:
            look = await in_background(self._source.look, niceness=0)
        except SourceError as error:
            raise StartupError(str(error)) from error
        if look.stale:
            self._outage = look.stale
            logger.warning("%s", one_line(look.stale))
        self._take(look)
        for version in self._versions.values():
            # What is there at the start need not wait for a second look.
            version.looks = SETTLED_LOOKS
        wanted = list(self._wanted())
        self._awaited = {version.address[0] for version in wanted}
        async with Prover(self._settings, niceness=0) as prover:
            # The next one is proven while this process loads the one before.
            self._proofs = {version.address: asyncio.create_task(self._prove(version, prover)) for version in wanted}
            try:
                await self._settle(prover)
            finally:
                for proof in self._proofs.values():
                    proof.cancel()
                await asyncio.gather(*self._proofs.values(), return_exceptions=True)
                self._proofs.clear()
        if not list(self._encoders):
            reasons = "; ".join(
                f"{shown_address(version.address)}: {version.error or 'not wanted (--versions)'}"
                for version in self._versions.values()
            )
            raise StartupError(f"none of the encoders in {self._source.name} could be loaded: {one_line(reasons)}")
        if self._settings.engine == "auto" and any(encoder.info.device == "cpu" for encoder in self._encoders):
            warn_without_kernels()
        self._niceness = NICENESS

    async def run(self) -> None:
        """Follow the source until cancelled."""
        asked = self._settings.models_poll
        pause = self._source.poll_seconds if asked is None else asked
        while pause:
            await asyncio.sleep(pause)
            try:
                async with self._turn:
                    await self._look()
                    await self._settle()
            except Exception as error:  # if this loop ended, nothing new would ever be served
                logger.error("could not follow the changes of %s", self._source.name, exc_info=error)

    async def load(self, model: str) -> None:
        """See `Orders.load`. An order that has begun is carried out, even if its caller does not wait for the end."""
        if self._waiting >= MOST_WAITING:
            raise OverloadedError(
                f"{MOST_WAITING} orders to load are waiting, as many as this server lets wait; retry later",
                RETRY_SECONDS,
            )
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        self._order = asyncio.create_task(self._carry_out(model))
        self._order.add_done_callback(lambda order: self._turn.release())
        await asyncio.shield(self._order)

    async def _carry_out(self, model: str) -> None:
        """Carry out an order to load."""
        if not await self._look():
            raise UnavailableError(f"the source of encoders cannot be read: {one_line(self._outage)}")
        name, version = self._meant(model)
        found = [each for each in self._of(name) if version in ("", each.address[1]) and not each.missing]
        if not found:
            raise UnknownEncoderError(f"there is no {shown(model)} in the source of this server's encoders")
        for each in found:
            each.unloaded = False
            each.ordered = each.ordered or bool(version)
            if each.error:
                each.tried = None
            each.looks = SETTLED_LOOKS
        await self._settle()
        wanted = [each for each in self._wanted() if each in found]
        if not wanted and any(each.unloaded for each in found):
            raise UnknownEncoderError(f"{shown(model)} was unloaded by another order meanwhile")
        if not wanted:
            raise UnknownEncoderError(f"--versions leaves out all versions of {shown(model)}; order one: NAME@VERSION")
        if broken := [each for each in wanted if each.error]:
            raise BrokenEncoderError(
                "; ".join(f"{shown_address(each.address)} could not be loaded: {each.error}" for each in broken)
            )

    async def unload(self, model: str) -> None:
        """See `Orders.unload`."""
        name, version = self._meant(model)
        found = [each for each in self._of(name) if version in ("", each.address[1])]
        if not any(each.encoder or each.loading for each in found):
            raise UnknownEncoderError(f"nothing of {shown(model)} is served")
        withdrawn = []
        for each in found:
            each.unloaded, each.ordered = True, False
            if each.encoder is not None:
                encoder, each.encoder = each.encoder, None
                # Its files are to be tried again when they are wanted again.
                each.tried = None
                withdrawn.append(self._retire(encoder))
        self._note()
        for event in withdrawn:
            await event.wait()

    def _meant(self, model: str) -> tuple[str, str]:
        """Name and version of an order; an alias is the version that it means now."""
        name, _, version = model.partition("@")
        return name, str(self._aliases.get(name, {}).get(version, version))

    def _of(self, name: str) -> list[Version]:
        return [version for address, version in self._versions.items() if address[0] == name]

    async def _look(self) -> bool:
        """See what there is now; returns whether that could be seen."""
        try:
            look = await in_background(self._source.look)
            outage = look.stale
        except SourceError as error:
            outage = str(error)
        if outage:
            # An unmounted volume looks like an empty one. Whatever is served goes on.
            if outage != self._outage:
                self._outage = outage
                logger.error("cannot look for encoders, what is served goes on: %s", one_line(outage))
            return False
        self._outage = ""
        self._take(look)
        return True

    def _take(self, look: Look) -> None:
        for address, fingerprint in sorted(look.bundles.items(), key=lambda found: found[0]):
            version = self._versions.setdefault(address, Version(address, fingerprint))
            version.see(fingerprint)
        for address, version in self._versions.items():
            if address not in look.bundles:
                version.miss()
        self._aliases = look.aliases
        for place in look.problems.keys() - self._problems.keys():
            logger.error("%s in %s is ignored: %s", place, self._source.name, one_line(look.problems[place]))
        self._problems = look.problems

    async def _settle(self, prover: Prover | None = None) -> None:
        """Load what is wanted and untried, then unload what is not wanted any more."""
        async with prover or Prover(self._settings, niceness=self._niceness) as prover:
            while (version := self._next()) is not None:
                await self._load(version, prover)
        self._unload_unwanted()
        self._note()

    def _next(self) -> Version | None:
        """The next version to load."""
        due = (version for version in self._wanted() if version.is_untried and version.is_settled)
        return next(due, None)

    def _wanted(self) -> Iterator[Version]:
        """The versions that are to be served, and those whose folders are named so that they never can."""
        by_name: dict[str, list[Version]] = {}
        for version in self._versions.values():
            if not version.is_gone and not version.unloaded:
                by_name.setdefault(version.address[0], []).append(version)
        for name, found in sorted(by_name.items()):
            candidates = {number for each, number in self._candidates if each == name}
            numbers = {
                version.number: version
                for version in found
                if version.number is not None and version.number not in candidates
            }
            bad = [number for number, version in numbers.items() if version.error and version.encoder is None]
            rule = self._settings.version_policy.of(name)
            wanted = {*rule.wanted(numbers.keys(), bad), *self._aliases.get(name, {}).values(), *candidates}
            yield from (
                version
                for version in sorted(found, key=lambda version: version.number or 0)
                if version.number is None or version.number in wanted or version.ordered
            )

    async def _prove(self, version: Version, prover: Prover) -> tuple[Path, str]:
        """Fetch a version and try it in a process of its own; returns where it is, and its digest."""
        async with self._fetching:
            path = await in_background(lambda: self._source.fetch(version.address), niceness=self._niceness)
        return path, await prover.prove(path, version.address)

    async def _load(self, version: Version, prover: Prover) -> None:
        """Load a version and let it take calls, if it is good; what served it before goes on if it is not."""
        version.tried, version.loading = version.fingerprint, True
        self._note()
        path = None
        try:
            proof = self._proofs.pop(version.address, None)
            path, digest = await (self._prove(version, prover) if proof is None else proof)
            encoder = await self._loaded(version, path, digest)
            error = ""
        except BaseException as refusal:
            if not is_refusal(refusal):
                raise
            encoder, error = None, self._refused(version, path, refusal)
        finally:
            version.loading = False
        version.error = error
        if encoder is not None:
            await self._publish(version, encoder)
        self._note()

    async def _loaded(self, version: Version, path: Path, digest: str) -> ServedEncoder | None:
        """The encoder of a version whose files were proven; None where the same files are served already."""
        if version.encoder is not None and version.encoder.bundle.digest == digest:
            return None
        encoder = await in_background(
            lambda: load_encoder(path, version.address, self._settings, self._gpu_memory),
            niceness=self._niceness,
        )
        if encoder.bundle.digest != digest:
            encoder.engine.close()
            version.tried, version.looks = None, 0
            raise BundleError("it was changed while it was loaded; it is tried again once it stays as it is")
        return encoder

    def _refused(self, version: Version, path: Path | None, error: BaseException) -> str:
        """Report why a version is not served; returns it for callers."""
        label = shown_address(version.address)
        reason, expected = reason_of(error, path, label)
        if isinstance(error, SourceError):
            # That it could not be fetched says nothing of its files.
            version.tried = None
            version.looks = 0
        if reason != version.error:
            what = "goes on with its files of before" if version.encoder else "is not served"
            logger.error("encoder %s %s: %s", label, what, one_line(reason), exc_info=None if expected else error)
            self._metrics.encoder_loads.labels(told(version.address[0]), "refused").inc()
        return reason

    async def _publish(self, version: Version, encoder: ServedEncoder) -> None:
        if version.unloaded:
            # It was ordered while this loaded.
            encoder.engine.close()
            version.tried = None
            return
        try:
            replaced = self._publisher.publish(encoder)
        except StartupError as error:
            encoder.engine.close()
            version.error = self._refused(version, None, error)
            return
        # An order to unload may come while others are told: it is about this one, and not about the one replaced.
        version.encoder = encoder
        await self._publisher.tell(encoder)
        if replaced is not None:
            self._retire(replaced)
        self._awaited.discard(version.address[0])
        self._metrics.encoder_loads.labels(version.address[0], "loaded").inc()
        if self._niceness:
            logger.info("encoder %s takes calls now%s", label_of(encoder), ", with other files" if replaced else "")

    def _unload_unwanted(self) -> None:
        """Take out of service what is gone, and what is not wanted any more once that which is wanted is served."""
        wanted = set(self._wanted())
        pending = {version.address[0] for version in wanted if version.encoder is None and not version.error}
        for address, version in list(self._versions.items()):
            is_unwanted = version not in wanted and address[0] not in pending
            if version.encoder is not None and (version.is_gone or is_unwanted):
                logger.info("encoder %s is unloaded", shown_address(address))
                self._retire(version.encoder)
                version.encoder, version.tried = None, None
            if version.is_gone:
                del self._versions[address]
                with suppress(KeyError):
                    self._metrics.encoder_ready.remove(*map(told, address))
        self._awaited &= {name for name, _ in self._versions}

    def _retire(self, encoder: ServedEncoder) -> asyncio.Event:
        """Take an encoder out of service, and free it when its calls have ended.

        Returns:
            What is set once no new call finds it.
        """
        withdrawn = asyncio.Event()
        self._publisher.withdraw(encoder)
        task = asyncio.create_task(self._publisher.retire(encoder, withdrawn))
        self._unloading[encoder] = task
        task.add_done_callback(lambda task: self._unloaded(encoder, task))
        return withdrawn

    def _unloaded(self, encoder: ServedEncoder, task: "asyncio.Task[None]") -> None:
        del self._unloading[encoder]
        if task.cancelled():
            return
        if error := task.exception():
            logger.error("encoder %s could not be unloaded", label_of(encoder), exc_info=error)
        self._note()
        # Once the last reference to it, that of this call, is gone.
        asyncio.get_running_loop().call_soon(self._give_back_memory)

    def _give_back_memory(self) -> None:
        task = asyncio.create_task(in_background(give_back_memory))
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    def _note(self) -> None:
        """Say everywhere what became of every version."""
        statuses = {address_of(encoder): Status(State.UNLOADING, "it is being unloaded") for encoder in self._unloading}
        for version, status in self._said():
            name, number = map(told, version.address)
            statuses[name, number] = status
        broken = self._kept_unready()
        if (said := (statuses, self._aliases, broken)) == self._noted:
            return
        self._noted = said
        self._encoders.note(statuses, self._aliases)
        self._state.set_broken(broken)
        self._publisher.list()

    def _said(self) -> Iterator[tuple[Version, Status]]:
        """What there is to say of versions that are not simply served."""
        wanted = set(self._wanted())
        for version in self._versions.values():
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
            for version in self._wanted()
            if version.error and (strict or version.address[0] in self._awaited)
        }
