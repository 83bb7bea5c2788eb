"""What becomes of versions while other processes are told of them."""

import asyncio
import shutil
from pathlib import Path

import pytest

from birnn_service.catalog import Catalog, Encoder
from birnn_service.errors import UnknownEncoderError
from birnn_service.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.queue_metrics import QueueMetrics
from birnn_service.repository.publisher import Publisher
from birnn_service.repository.repository import Repository
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.response_cache import ResponseCache
from birnn_service.settings import load_settings
from birnn_service.sources.folder import FolderSource
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from tests.service.engine.bundles import version_of


class Others:
    """Processes that take their time to follow, and note what they are told."""

    def __init__(self) -> None:
        self.served: list[int] = []
        self.withdrawn: list[int] = []
        self.telling = asyncio.Event()
        self.follow = asyncio.Event()

    async def serve(self, encoder: Encoder) -> None:
        self.served.append(encoder.instance)
        self.telling.set()
        await self.follow.wait()

    async def withdraw(self, encoder: Encoder) -> None:
        self.withdrawn.append(encoder.instance)

    async def until_released(self, encoder: Encoder) -> None:
        pass

    def list(self) -> None:
        pass


async def test_what_is_unloaded_while_it_replaces_another_is_unloaded_everywhere_and_each_once(tmp_path: Path) -> None:
    models = tmp_path / "models"
    version_of(models, "small", 1, 1.0)
    settings = load_settings({"models": str(models), "engine": "onnxruntime", "cache_dir": str(tmp_path / "cache")})
    encoders: Catalog[ServedEncoder] = Catalog()
    metrics, state, statistics = Metrics(), ServingState(), Statistics()
    queue_metrics = QueueMetrics(metrics)
    dispatcher = Dispatcher(observers=[queue_metrics])
    publisher = Publisher(encoders, dispatcher, queue_metrics, statistics, ResponseCache(0), state, metrics)
    repository = Repository(FolderSource(models), settings, encoders, publisher, state, metrics)
    await repository.start()
    (before,) = encoders
    publisher.others = others = Others()
    shutil.rmtree(models / "small")
    version_of(models, "small", 1, 2.0)
    loading = asyncio.create_task(repository.load("small"))
    await others.telling.wait()
    (after,) = encoders
    await repository.unload("small")
    assert not list(encoders)
    assert others.withdrawn == [after.instance]
    others.follow.set()
    with pytest.raises(UnknownEncoderError):
        await loading
    async with asyncio.TaskGroup() as ends:
        for encoder in (before, after):
            ends.create_task(_until_unloaded(encoders, encoder))
    assert sorted(others.withdrawn) == [before.instance, after.instance]
    dispatcher.close()


async def _until_unloaded(encoders: Catalog[ServedEncoder], encoder: ServedEncoder) -> None:
    while True:
        try:
            encoders.instance(encoder.instance)
        except UnknownEncoderError:
            return
        await asyncio.sleep(0.01)
