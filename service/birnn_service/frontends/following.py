"""A front-end's encoders, as the engine process says: which come, which go, and what there is beside them."""

import asyncio
import logging
from collections.abc import Callable

from birnn_service.catalog import Catalog, address_of
from birnn_service.errors import UnknownEncoderError
from birnn_service.frontends.messages import Followed, Listed, Message, Released, Retired, Served
from birnn_service.frontends.setup import RemoteEncoder, note_listing, read_encoder
from birnn_service.observe.metrics import Metrics
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics

logger = logging.getLogger(__name__)


class Following:
    """Follows changes in the order in which they are told, one after another."""

    def __init__(
        self,
        encoders: Catalog[RemoteEncoder],
        statistics: Statistics,
        state: ServingState,
        metrics: Metrics,
        send: Callable[[Message], None],
    ) -> None:
        """Change `encoders`, and tell the engine process what has been done."""
        self._encoders = encoders
        self._statistics = statistics
        self._state = state
        self._metrics = metrics
        self._send = send
        self._told: asyncio.Queue[Served | Retired | Listed] = asyncio.Queue()
        self._releasing: set[asyncio.Task[None]] = set()

    def tell(self, message: Served | Retired | Listed) -> None:
        """Take a change; it is made in its turn."""
        self._told.put_nowait(message)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            match await self._told.get():
                case Served(number, raw):
                    # On a thread: a vocabulary may be large, and calls go on.
                    encoder = await asyncio.to_thread(read_encoder, raw)
                    self._statistics.add(encoder, encoder.row)
                    self._metrics.begin(address_of(encoder))
                    self._encoders.put(encoder)
                    self._send(Followed(number))
                case Retired(number):
                    self._retire(number)
                case Listed(raw):
                    self._state.set_broken(note_listing(self._encoders, raw))

    def _retire(self, number: int) -> None:
        try:
            encoder = self._encoders.instance(number)
        except UnknownEncoderError:
            # It was replaced already when this process was told what is served.
            self._send(Followed(number))
            self._send(Released(number))
            return
        self._encoders.take_out(encoder)
        self._send(Followed(number))
        task = asyncio.create_task(self._release(encoder))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, encoder: RemoteEncoder) -> None:
        await self._encoders.until_unused(encoder)
        self._encoders.forget(encoder)
        self._statistics.remove(encoder)
        self._metrics.end(address_of(encoder))
        self._send(Released(encoder.instance))
