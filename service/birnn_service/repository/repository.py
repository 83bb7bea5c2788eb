"""The repository: loads what is wanted of a source, and unloads it: every step in the life of a version."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from birnn_bundle.errors import BundleError, is_refusal
from birnn_bundle.quoting import one_line, shown, told
from birnn_service.catalog import Catalog, label_of
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.errors import (
    BrokenEncoderError,
    OverloadedError,
    Reason,
    StartupError,
    UnavailableError,
    UnknownEncoderError,
)
from birnn_service.memory_budget import RETRY_SECONDS
from birnn_service.observe.metrics import Metrics
from birnn_service.repository.background import NICENESS, in_background
from birnn_service.repository.inventory import Inventory
from birnn_service.repository.loading import load_encoder, reason_of, warn_without_kernels
from birnn_service.repository.prover import Prover
from birnn_service.repository.publisher import Publisher
from birnn_service.repository.report import Report
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.repository.version import SETTLED_LOOKS, Version
from birnn_service.settings import Settings
from birnn_service.sources.source import Source, SourceError, shown_address
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
        self._settings = settings
        self._gpu_memory = GpuMemory(settings.gpu_memory_mib)
        self._encoders = encoders
        self._publisher = publisher
        self._metrics = metrics
        self._inventory = Inventory(source, settings)
        self._report = Report(self._inventory, settings, encoders, publisher, state, metrics)
        # One change of what is loaded at a time.
        self._turn = asyncio.Lock()
        self._waiting = 0
        # The order to load that has the turn, or had it last.
        self._order: asyncio.Task[None] | None = None
        self._proofs: dict[Address, asyncio.Task[tuple[Path, str]]] = {}
        self._niceness = 0

    @property
    def is_loading(self) -> bool:
        """Whether a version is being loaded, on a thread that cannot be stopped."""
        return any(version.loading for version in self._inventory.versions.values())

    async def start(self) -> None:
        """Load what is wanted of what there is; what is broken is reported, and the rest is served.

        Raises:
            StartupError: There is nothing, or nothing of it can be served.
        """
        try:
            await self._inventory.first_look()
        except SourceError as error:
            raise StartupError(str(error)) from error
        for version in self._inventory.versions.values():
            # What is there at the start need not wait for a second look.
            version.looks = SETTLED_LOOKS
        wanted = list(self._inventory.wanted())
        self._report.await_good(version.address[0] for version in wanted)
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
                for version in self._inventory.versions.values()
            )
            source = self._inventory.source_name
            raise StartupError(f"none of the encoders in {source} could be loaded: {one_line(reasons)}")
        if self._settings.engine == "auto" and any(encoder.info.device == "cpu" for encoder in self._encoders):
            warn_without_kernels()
        self._niceness = NICENESS

    async def run(self) -> None:
        """Follow the source until cancelled."""
        while pause := self._inventory.poll_seconds:
            await asyncio.sleep(pause)
            try:
                async with self._turn:
                    await self._inventory.look()
                    await self._settle()
            except Exception as error:  # if this loop ended, nothing new would ever be served
                logger.error("could not follow the changes of %s", self._inventory.source_name, exc_info=error)

    async def load(self, model: str) -> None:
        """See `Orders.load`. An order that has begun is carried out, even if its caller does not wait for the end."""
        if self._waiting >= MOST_WAITING:
            raise OverloadedError(
                f"{MOST_WAITING} orders to load are waiting, as many as this server lets wait; retry later",
                RETRY_SECONDS,
                Reason.ORDERS,
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
        if not await self._inventory.look():
            raise UnavailableError(f"the source of encoders cannot be read: {one_line(self._inventory.outage)}")
        name, version = self._inventory.meant(model)
        found = [each for each in self._inventory.of(name) if version in ("", each.address[1]) and not each.missing]
        if not found:
            raise UnknownEncoderError(f"there is no {shown(model)} in the source of this server's encoders")
        for each in found:
            each.unloaded = False
            each.ordered = each.ordered or bool(version)
            if each.error:
                each.tried = None
            each.looks = SETTLED_LOOKS
        await self._settle()
        wanted = [each for each in self._inventory.wanted() if each in found]
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
        name, version = self._inventory.meant(model)
        found = [each for each in self._inventory.of(name) if version in ("", each.address[1])]
        if not any(each.encoder or each.loading for each in found):
            raise UnknownEncoderError(f"nothing of {shown(model)} is served")
        withdrawn = []
        for each in found:
            each.unloaded, each.ordered = True, False
            if each.encoder is not None:
                encoder, each.encoder = each.encoder, None
                # Its files are to be tried again when they are wanted again.
                each.tried = None
                withdrawn.append(self._publisher.retire(encoder, self._report.note))
        self._report.note()
        for event in withdrawn:
            await event.wait()

    async def _settle(self, prover: Prover | None = None) -> None:
        """Load what is wanted and untried, then unload what is not wanted any more."""
        async with prover or Prover(self._settings, niceness=self._niceness) as prover:
            while (version := self._inventory.next_due()) is not None:
                await self._load(version, prover)
        self._unload_unwanted()
        self._report.note()

    async def _prove(self, version: Version, prover: Prover) -> tuple[Path, str]:
        """Fetch a version and try it in a process of its own; returns where it is, and its digest."""
        path = await self._inventory.fetch(version.address, self._niceness)
        return path, await prover.prove(path, version.address)

    async def _load(self, version: Version, prover: Prover) -> None:
        """Load a version and let it take calls, if it is good; what served it before goes on if it is not."""
        version.tried, version.loading = version.fingerprint, True
        self._report.note()
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
        self._report.note()

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
            self._metrics.encoder_loads.labels(*map(told, version.address), "refused").inc()
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
            self._publisher.retire(replaced, self._report.note)
        self._report.note_good(version.address[0])
        if self._niceness:
            logger.info("encoder %s takes calls now%s", label_of(encoder), ", with other files" if replaced else "")

    def _unload_unwanted(self) -> None:
        """Take out of service what is gone, and what is not wanted any more once that which is wanted is served."""
        wanted = set(self._inventory.wanted())
        pending = {version.address[0] for version in wanted if version.encoder is None and not version.error}
        for address, version in list(self._inventory.versions.items()):
            is_unwanted = version not in wanted and address[0] not in pending
            if version.encoder is not None and (version.is_gone or is_unwanted):
                logger.info("encoder %s is unloaded", shown_address(address))
                self._publisher.retire(version.encoder, self._report.note)
                version.encoder, version.tried = None, None
            if version.is_gone:
                del self._inventory.versions[address]
                with suppress(KeyError):
                    self._metrics.encoder_ready.remove(*map(told, address))
