"""What goes to candidates, and what is counted of it."""

import asyncio
import itertools
import logging
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.smiles import SmilesTokenizer
from birnn_service.call import Call
from birnn_service.catalog import Encoders
from birnn_service.compute import Work
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.errors import EngineError, OverloadedError, Reason, StartupError
from birnn_service.memory_budget import MemoryBudget
from birnn_service.observe.metrics import Metrics
from birnn_service.pipeline import Options
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.request import Computed
from birnn_service.settings_reader import load_settings
from birnn_service.shadow import MOST_SEQUENCES, MOST_UNDER_WAY, ShadowedPipeline, _Sampling, drift
from birnn_service.tenants import SHADOW
from birnn_service.vectors import ElementType
from tests.service.engine.bundles import small_bundle

WIDTH = 8
SEQUENCES = [b"C", b"CC", b"CCO"]


@dataclass(frozen=True, eq=False)
class Version:
    """One version of one encoder, without an engine."""

    manifest: Any
    tokenizer: Any
    info: Any
    instance: int


@dataclass
class Vectors:
    """Computes vectors that follow from version and tokens; holds candidates up at a gate, and fails as told."""

    work: list[Work] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    async def encode(self, work: Work) -> Computed:
        self.work.append(work)
        if work.caller == SHADOW:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
        turned = np.eye(WIDTH, dtype=np.float32)[work.encoder.manifest.version - 1]
        sums = np.array([work.batch.values[start:end].sum() for start, end in itertools.pairwise(work.batch.offsets)])
        return Computed(np.ones((len(sums), WIDTH), dtype=np.float32) * sums[:, None] + turned, 0.001, 0.002)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Version]:
    bundle = small_bundle(tmp_path_factory.mktemp("small"))
    info = EngineInfo("none", "cpu", "float32", slots=1, max_rows=8, parallel_slots=True)
    return [
        Version(bundle.manifest.model_copy(update={"version": number}), bundle.tokenizer, info, number)
        for number in (1, 2)
    ]


class Running:
    """A pipeline with version 2 as the candidate, and what it counts."""

    def __init__(self, versions: Iterable[Version], share: str = "1") -> None:
        self.metrics = Metrics()
        self.compute = Vectors()
        self.versions = list(versions)
        settings = load_settings({"shadow": f"small/2={share}"})
        self.pipeline = ShadowedPipeline(self.compute, settings, self.metrics, Encoders(self.versions))

    async def encode(self, sequences: list[bytes], **options: Any) -> Any:
        call = Call(
            "somebody", None, MemoryBudget(1 << 30).open("somebody"), self.versions[0], self.metrics.of(("small", "1"))
        )
        return await self.pipeline.encode(call, sequences, Options(**options))

    async def settle(self) -> None:
        """Let candidates answer."""
        self.compute.gate.set()
        await asyncio.gather(*self.pipeline._tasks)

    def counted(self, name: str, **labels: str) -> float:
        wanted = {("encoder", "small"), ("version", "1"), ("candidate", "2"), *labels.items()}
        samples = [sample for family in self.metrics.registry.collect() for sample in family.samples]
        return sum(one.value for one in samples if one.name == name and wanted <= set(one.labels.items()))


async def test_a_candidate_gets_what_was_answered_and_its_vectors_are_compared(versions: list[Version]) -> None:
    running = Running(versions)
    encoded = await running.encode(SEQUENCES)
    assert encoded.encoder.manifest.version == 1
    # The caller has its answer by now, and the candidate none.
    assert len(running.pipeline._tasks) == 1
    await running.settle()
    served, candidate = running.compute.work
    assert (served.encoder.manifest.version, candidate.encoder.manifest.version) == (1, 2)
    assert candidate.priority is Priority.LOW
    assert candidate.caller == SHADOW
    np.testing.assert_array_equal(candidate.batch.values, served.batch.values)
    assert running.counted("birnn_shadow_requests_total", outcome="answered") == 1
    assert running.counted("birnn_shadow_sequences_total", outcome="compared") == 3
    assert running.counted("birnn_shadow_drift_count") == 3
    other = await running.compute.encode(candidate)
    assert running.counted("birnn_shadow_drift_sum") == pytest.approx(drift(encoded.values, other.values).sum())
    for role in ("served", "candidate"):
        assert running.counted("birnn_shadow_compute_seconds_count", role=role) == 1
    running.pipeline.close()


@pytest.mark.parametrize(
    "options",
    [{"output": Output.TOKENS}, {"element_type": ElementType.INT8}],
    ids=["tokens", "int8"],
)
async def test_what_cannot_be_compared_is_not_sent(versions: list[Version], options: dict[str, Any]) -> None:
    running = Running(versions)
    await running.encode(SEQUENCES, **options)
    assert len(running.pipeline._tasks) == 0
    running.pipeline.close()


async def test_only_the_first_sequences_of_a_large_request_are_sent(versions: list[Version]) -> None:
    running = Running(versions)
    await running.encode([b"C"] * (MOST_SEQUENCES + 10))
    await running.settle()
    assert len(running.compute.work[1].batch) == MOST_SEQUENCES
    running.pipeline.close()


async def test_a_large_reply_is_not_kept_until_the_candidate_has_answered(versions: list[Version]) -> None:
    running = Running(versions)
    encoded = await running.encode([b"C"] * (MOST_SEQUENCES + 1))
    values = weakref.ref(encoded.values)
    del encoded
    assert values() is None
    await running.settle()
    assert running.counted("birnn_shadow_sequences_total", outcome="compared") == MOST_SEQUENCES


async def test_requests_are_skipped_while_the_candidate_is_behind(versions: list[Version]) -> None:
    running = Running(versions)
    for _ in range(MOST_UNDER_WAY + 3):
        await running.encode(SEQUENCES)
    assert len(running.pipeline._tasks) == MOST_UNDER_WAY
    assert running.counted("birnn_shadow_requests_total", outcome="skipped") == 3
    await running.settle()
    assert running.counted("birnn_shadow_requests_total", outcome="answered") == MOST_UNDER_WAY
    running.pipeline.close()


@pytest.mark.parametrize(
    ("failure", "outcome", "logged"),
    [
        (EngineError("broken"), "failed", False),
        (OverloadedError("full", 1.0, Reason.QUEUE), "skipped", False),
        (ZeroDivisionError("a fault of ours"), "failed", True),
    ],
)
async def test_a_candidate_that_fails_is_counted_and_hurts_nobody(
    versions: list[Version],
    failure: Exception,
    outcome: str,
    logged: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = Running(versions)
    running.compute.failure = failure
    with caplog.at_level(logging.ERROR):
        assert len((await running.encode(SEQUENCES)).values) == 3
        await running.settle()
    assert running.counted("birnn_shadow_requests_total", outcome=outcome) == 1
    assert bool(caplog.records) is logged
    running.pipeline.close()


async def test_a_candidate_that_is_not_served_is_counted(versions: list[Version]) -> None:
    running = Running(versions[:1])
    await running.encode(SEQUENCES)
    await running.settle()
    assert running.counted("birnn_shadow_requests_total", outcome="failed") == 1
    running.pipeline.close()


async def test_sequences_that_only_one_can_read_are_counted(versions: list[Version]) -> None:
    reads_more = Version(versions[1].manifest, SmilesTokenizer.train(["C[Na]", "CCO"], minimum_count=1), None, 2)
    running = Running([versions[0], reads_more])
    encoded = await running.encode([b"C", b"", b"C" * 300, b"CCO"])
    assert [error.index for error in encoded.errors] == [1, 2]
    await running.settle()
    assert running.counted("birnn_shadow_sequences_total", outcome="both_failed") == 2
    assert running.counted("birnn_shadow_sequences_total", outcome="compared") == 2
    running.pipeline.close()


@given(
    st.floats(0.01, 1.0).map(lambda share: round(share, 3)),
    st.lists(st.integers(1, 50), min_size=1, max_size=200),
)
def test_the_share_of_sequences_is_the_one_asked_for(share: float, counts: list[int]) -> None:
    sampling = _Sampling(share)
    taken = sum(count for count in counts if sampling.takes(count))
    assert abs(taken - share * sum(counts)) <= max(counts)


@pytest.mark.parametrize(
    ("other", "expected"),
    [([1, 0], 0.0), ([2, 0], 0.0), ([0, 1], 1.0), ([-1, 0], 2.0), ([0, 0], 1.0), ([1, 1], 1 - 0.5**0.5)],
)
def test_drift_is_one_less_the_cosine(other: list[int], expected: float) -> None:
    found = drift(np.array([[1, 0]], np.float32), np.array([other], np.float32))
    assert found == pytest.approx([expected])


def test_vectors_without_length_are_alike() -> None:
    zero = np.zeros((1, 4), np.float32)
    assert drift(zero, zero).tolist() == [0.0]


@pytest.mark.parametrize(
    "text", ["smiles", "smiles/3", "smiles=0.1", "smiles/3=2", "smiles/3=0", "smiles/x=0.1", "a/1=b"]
)
def test_a_candidate_without_version_or_share_is_refused(text: str) -> None:
    with pytest.raises(StartupError, match=r"--shadow holds .* such as smiles/3=0\.1"):
        load_settings({"shadow": text})


def test_several_candidates_may_be_named() -> None:
    settings = load_settings({"shadow": "smiles/3=0.1, text/12=1"})
    assert settings.candidates == {("smiles", "3"): 0.1, ("text", "12"): 1.0}
