"""What the worst neighbors cost a single call, in simulated time."""

from dataclasses import replace

import pytest

from bench.simulation.device import CPU, GPU, PACKED, Device
from bench.simulation.load import LogNormal
from bench.simulation.neighbors import NEIGHBORS, Beside, beside
from birnn_service.queueing.priority import Priority

ONE_SLOT = replace(PACKED, slots=1, wide_cost=None)
LARGE = ["8,192 with a tight deadline", "32 x 512 in flight"]


def assert_bounded(result: Beside) -> None:
    """The promise: no single call waits longer than for three batches and 20 ms, and none is refused."""
    assert result.lost == 0
    assert result.worst <= 3 * result.batch + 0.02


@pytest.mark.parametrize(("device", "lanes"), [(PACKED, 1), (PACKED, 2), (ONE_SLOT, 2)], ids=["one", "two", "one slot"])
@pytest.mark.parametrize("neighbor", NEIGHBORS)
def test_a_neighbor_costs_a_single_call_no_more_than_three_batches(neighbor: str, device: Device, lanes: int) -> None:
    assert_bounded(beside(device, NEIGHBORS[neighbor], LogNormal(), lanes=lanes))


@pytest.mark.parametrize("priority", [Priority.HIGH, Priority.LOW])
@pytest.mark.parametrize("neighbor", NEIGHBORS)
def test_the_same_holds_whatever_priority_the_neighbor_claims(neighbor: str, priority: Priority) -> None:
    assert_bounded(beside(PACKED, NEIGHBORS[neighbor], LogNormal(), priority=priority))


@pytest.mark.parametrize(("neighbor", "device"), [(LARGE[0], GPU), *((name, CPU) for name in LARGE)])
def test_the_same_holds_where_batches_are_padded(neighbor: str, device: Device) -> None:
    assert_bounded(beside(device, NEIGHBORS[neighbor], LogNormal()))


@pytest.mark.parametrize("neighbor", LARGE)
def test_large_calls_from_the_same_address_cost_single_calls_no_more(neighbor: str) -> None:
    assert_bounded(beside(PACKED, NEIGHBORS[neighbor], LogNormal(), caller="neighbor"))
