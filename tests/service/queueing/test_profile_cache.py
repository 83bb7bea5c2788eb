"""Costs are measured once, kept, checked, and measured again where they no longer hold."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.profile_cache import LARGEST_ERROR, ProfileCache, default_folder, profile_key

MODELS = Path(__file__).parents[3] / "models"


class Ticking:
    """An engine whose runs move a clock by what a cost model says."""

    def __init__(self, cost: CostModel) -> None:
        self.info = EngineInfo("ticking 1", "cpu", "float32", 2, max_rows=8, parallel_slots=True)
        self.cost = cost
        self.now = 0.0
        self.runs = 0

    def close(self) -> None:
        pass

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        self.runs += 1
        self.now += self.cost.batch_seconds(batch.lengths)
        return np.zeros((len(batch), 2), dtype=np.float32)


COST = CostModel(1e-4, 1e-5, 1e-6)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(MODELS / "smiles" / "1")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    ticking = Ticking(COST)
    monkeypatch.setattr(time, "thread_time", lambda: ticking.now)
    return ticking


def same(found: CostModel, expected: CostModel) -> bool:
    return found.seconds(3, 40) == pytest.approx(expected.seconds(3, 40), rel=1e-6)


def measured_again(cache: ProfileCache, bundle: Bundle, engine: Ticking) -> bool:
    """Whether a start measures in full, rather than the two shapes that check a profile."""
    engine.runs = 0
    cache.profile(bundle, engine, Output.POOLED)
    return engine.runs > 6


def test_a_second_start_only_checks_what_the_first_has_measured(
    tmp_path: Path, bundle: Bundle, engine: Ticking
) -> None:
    cache = ProfileCache(tmp_path / "made" / "here")
    assert same(cache.profile(bundle, engine, Output.POOLED), COST)
    assert not measured_again(cache, bundle, engine)
    assert same(ProfileCache(tmp_path / "made" / "here").profile(bundle, engine, Output.POOLED), COST)


@pytest.mark.parametrize(("factor", "kept"), [(1.1 * LARGEST_ERROR, False), (0.9 / LARGEST_ERROR, True)])
def test_a_machine_of_another_speed_is_measured_again_and_the_fastest_profile_is_kept(
    tmp_path: Path, bundle: Bundle, engine: Ticking, factor: float, kept: bool
) -> None:
    cache = ProfileCache(tmp_path)
    cache.profile(bundle, engine, Output.POOLED)
    engine.cost = COST.scaled(factor)
    assert same(cache.profile(bundle, engine, Output.POOLED), engine.cost)
    assert measured_again(cache, bundle, engine) != kept
    engine.cost = COST
    assert measured_again(cache, bundle, engine) == kept


@pytest.mark.parametrize(
    "change", [{"engine": "ticking 2"}, {"precision": "bfloat16"}, {"max_rows": 16}, {"packed": True}]
)
def test_another_engine_precision_or_size_is_measured_for_itself(
    tmp_path: Path, bundle: Bundle, engine: Ticking, change: dict[str, object]
) -> None:
    cache = ProfileCache(tmp_path)
    cache.profile(bundle, engine, Output.POOLED)
    engine.info = replace(engine.info, **change)  # type: ignore[arg-type]
    assert measured_again(cache, bundle, engine)


def test_another_output_number_of_slots_or_bundle_has_another_key(bundle: Bundle, engine: Ticking) -> None:
    other = Bundle.load(MODELS / "text" / "1")
    keys = {
        profile_key(bundle, engine, Output.POOLED, 1),
        profile_key(bundle, engine, Output.POOLED, 2),
        profile_key(bundle, engine, Output.TOKENS, 1),
        profile_key(other, engine, Output.POOLED, 1),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: b"\x80\x04\x95",
        lambda text: text.replace(b'"fixed": ', b'"fixed": -'),
        lambda text: text.replace(b"ticking 1", b"other 1"),
        lambda text: json.dumps(json.loads(text) | {"per_cell": float("nan")}).encode(),
        lambda text: json.dumps(json.loads(text) | {"fixed": 0.0, "per_step": 0.0, "per_cell": 0.0}).encode(),
        lambda text: json.dumps(json.loads(text) | {"surplus": 1}).encode(),
        lambda text: json.dumps(json.loads(text) | {"schema_version": 2}).encode(),
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_and_written_anew(
    tmp_path: Path, bundle: Bundle, engine: Ticking, damage: "object"
) -> None:
    assert callable(damage)
    cache = ProfileCache(tmp_path)
    cache.profile(bundle, engine, Output.POOLED)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert path.read_bytes() != sound
    assert measured_again(cache, bundle, engine)
    assert json.loads(path.read_bytes()).keys() == json.loads(sound).keys()
    assert not measured_again(cache, bundle, engine)
    assert list(tmp_path.iterdir()) == [path], "nothing half-written is left behind"


def test_without_a_folder_or_one_that_can_be_written_engines_are_measured_each_time(
    tmp_path: Path, bundle: Bundle, engine: Ticking
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    for folder in (None, blocked / "below"):
        cache = ProfileCache(folder)
        assert same(cache.profile(bundle, engine, Output.POOLED), COST)
        assert measured_again(cache, bundle, engine)


def test_the_default_folder_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "birnn-serving"
    monkeypatch.setenv("XDG_CACHE_HOME", f"relative{os.sep}path")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "birnn-serving"
