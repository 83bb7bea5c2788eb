"""From what a source holds to what is served, step by step."""

import asyncio
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_service.catalog import Catalog, Encoder
from birnn_service.engine import loading as engine_loading
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.onnx_session import CPU, CUDA
from birnn_service.errors import BrokenEncoderError, OverloadedError, UnknownEncoderError
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.queue_metrics import QueueMetrics
from birnn_service.repository.loading import load_encoder
from birnn_service.repository.prover import Prover
from birnn_service.repository.publisher import Publisher
from birnn_service.repository.repository import MOST_WAITING, Repository
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.response_cache import ResponseCache
from birnn_service.settings_reader import load_settings
from birnn_service.sources.folder import FolderSource
from birnn_service.sources.source import Look, Source
from birnn_service.state import Address, ServingState
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


class Serving:
    """A repository and all that it tells; it has begun to serve `small/1`."""

    def __init__(self, folder: Path, source: Source | None = None, **settings: str) -> None:
        self.models = folder / "models"
        version_of(self.models, "small", 1, 1.0)
        values = {"models": str(self.models), "engine": "onnxruntime", "cache_dir": str(folder / "cache")} | settings
        self.encoders: Catalog[ServedEncoder] = Catalog()
        metrics, state = Metrics(), ServingState()
        self.dispatcher = Dispatcher(observers=[QueueMetrics(metrics)])
        self.publisher = Publisher(self.encoders, self.dispatcher, Statistics(), ResponseCache(0), state, metrics)
        self.repository = Repository(
            source or FolderSource(self.models), load_settings(values), self.encoders, self.publisher, state, metrics
        )

    def replace(self, largest: float) -> None:
        """Put other files in the place of its version."""
        shutil.rmtree(self.models / "small")
        version_of(self.models, "small", 1, largest)


async def test_what_is_unloaded_while_it_replaces_another_is_unloaded_everywhere_and_each_once(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    encoders, repository = serving.encoders, serving.repository
    await repository.start()
    (before,) = encoders
    serving.publisher.others = others = Others()
    serving.replace(2.0)
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
    serving.dispatcher.close()


async def test_files_that_change_with_every_load_keep_nothing_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(tmp_path)
    await serving.repository.start()
    (before,) = serving.encoders
    loads = 0

    def load(*arguments: Any) -> ServedEncoder:
        nonlocal loads
        loads += 1
        assert loads < 3, "it is tried again at once"
        serving.replace(2.0 + loads)
        return load_encoder(*arguments)

    monkeypatch.setattr("birnn_service.repository.repository.load_encoder", load)
    serving.replace(2.0)
    with pytest.raises(BrokenEncoderError, match="changed while it was loaded"):
        await serving.repository.load("small")
    assert (loads, list(serving.encoders)) == (1, [before])
    serving.dispatcher.close()


class OneAtATime(FolderSource):
    """A source that refuses two calls at once, as sources need not allow for them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lock = threading.Lock()

    def fetch(self, address: Address) -> Path:
        assert self.lock.acquire(blocking=False), "a second call at the same time"
        try:
            # Long enough for others to come meanwhile.
            time.sleep(0.1)
            return super().fetch(address)
        finally:
            self.lock.release()


async def test_at_the_start_bundles_are_fetched_one_after_another(tmp_path: Path) -> None:
    serving = Serving(tmp_path, OneAtATime(tmp_path / "models"))
    for version in (2, 3):
        version_of(serving.models, "small", version, float(version))
    await serving.repository.start()
    assert serving.encoders.versions("small") == [1, 2, 3]
    serving.dispatcher.close()


class Slow(FolderSource):
    """A source that takes its time to be looked at."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_look = threading.Event()
        self.may_look.set()

    def look(self) -> Look:
        self.may_look.wait()
        return super().look()


async def test_orders_that_wait_are_bounded_and_those_that_have_given_up_make_room(tmp_path: Path) -> None:
    source = Slow(tmp_path / "models")
    serving = Serving(tmp_path, source)
    await serving.repository.start()
    source.may_look.clear()
    orders = [asyncio.create_task(serving.repository.load("small")) for _ in range(1 + MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match=f"{MOST_WAITING} orders to load are waiting"):
        await serving.repository.load("small")
    orders.pop().cancel()
    await asyncio.sleep(0)
    orders.append(asyncio.create_task(serving.repository.load("small")))
    source.may_look.set()
    await asyncio.gather(*orders)
    serving.dispatcher.close()


async def _until_unloaded(encoders: Catalog[ServedEncoder], encoder: ServedEncoder) -> None:
    while True:
        try:
            encoders.instance(encoder.instance)
        except UnknownEncoderError:
            return
        await asyncio.sleep(0.01)


async def test_a_version_for_which_the_gpu_has_no_room_beside_the_running_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU stands in for the GPU, and no process tries versions first, as it would find none."""

    async def prove(_: Prover, path: Path, address: Address) -> str:
        return Bundle.load(path).digest

    def ordinary(size: int) -> NDArray[np.uint8]:
        return np.empty(size, dtype=np.uint8)

    monkeypatch.setattr(Prover, "prove", prove)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(engine_loading, "CudaEngine", partial(CudaEngine, provider=CPU, allocate=ordinary))
    monkeypatch.setattr(engine_loading, "CUDA", CPU)
    monkeypatch.setattr(engine_loading, "WARM_UP_SECONDS", 0.1)
    serving = Serving(tmp_path, engine="auto", device="cuda", gpu_memory_mib="300")
    await serving.repository.start()
    (before,) = serving.encoders
    serving.replace(2.0)
    with pytest.raises(BrokenEncoderError, match=r"needs at least \d+ MiB of GPU memory, and \d+ of 300 MiB are left"):
        await serving.repository.load("small")
    assert list(serving.encoders) == [before]
    # Once the running one is gone, there is room.
    await serving.repository.unload("small")
    await asyncio.gather(*serving.publisher._unloading.values())
    await serving.repository.load("small")
    (after,) = serving.encoders
    assert after is not before
    serving.dispatcher.close()
