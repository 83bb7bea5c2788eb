import numpy as np
import pytest

from bench.simulation.device import CPU
from bench.simulation.policies import SimulatedEngine
from birnn_service.engine.engine import Output
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.lane import LARGEST_DRIFT, Lane

PROFILE = CostModel(1e-4, 1e-5, 1e-6)
EIGHT = np.full(8, 50)


def lane() -> Lane:
    return Lane("simulated", SimulatedEngine(CPU), Output.POOLED, 1, PROFILE)


def test_predictions_follow_a_machine_that_got_slower() -> None:
    learner = lane()
    assert learner.learn(EIGHT, 2 * PROFILE.seconds(8, 50)) == PROFILE.seconds(8, 50)
    for _ in range(200):
        learner.learn(EIGHT, 2 * PROFILE.seconds(8, 50))
    assert learner.cost.seconds(3, 20) == pytest.approx(2 * PROFILE.seconds(3, 20), rel=0.01)


def test_one_batch_that_hung_moves_predictions_only_a_little() -> None:
    learner = lane()
    learner.learn(EIGHT, 1e6)
    assert learner.drift < 1 + 0.05 * LARGEST_DRIFT
