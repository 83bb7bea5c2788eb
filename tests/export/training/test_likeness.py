"""When vectors count as alike as their molecules."""

import numpy as np
import torch

from birnn_export.training.likeness import FEWEST, Likeness
from birnn_export.training.standardization import Standardization

ROWS, DESCRIPTORS = 24, 6


def molecules() -> torch.Tensor:
    """Descriptors float32 [ROWS, DESCRIPTORS], each on a scale of its own."""
    random = np.random.default_rng(3)
    descriptors = random.normal(size=(ROWS, DESCRIPTORS)) * [1, 10, 0.1, 1, 1, 1] + [0, 50, 0, 1, 2, 3]
    return torch.from_numpy(descriptors).float()


def likeness(dimension: int) -> Likeness:
    return Likeness(dimension, Standardization(molecules().numpy()))


def test_vectors_that_tell_descriptors_are_more_alike_than_random_ones() -> None:
    descriptors = molecules()
    noise = torch.randn(ROWS, DESCRIPTORS, generator=torch.Generator().manual_seed(1))
    told = torch.cat([3 * Standardization(descriptors.numpy())(descriptors), noise], dim=1)
    random = torch.randn(ROWS, told.shape[1], generator=torch.Generator().manual_seed(0))
    losses = [likeness(told.shape[1]).eval()(vectors, descriptors).loss for vectors in (told, random)]
    assert losses[0] < 0.3
    assert 0.8 < losses[1] < 1.2


def test_following_the_gradient_makes_vectors_alike() -> None:
    descriptors = molecules()
    vectors = torch.randn(ROWS, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    objective = likeness(32)
    optimizer = torch.optim.Adam([vectors], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = objective(vectors, descriptors).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_scale_and_offset_of_a_float_do_not_matter_once_they_are_known() -> None:
    descriptors = molecules()
    vectors = torch.randn(ROWS, 16, generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(-2, 2, 16)
    losses = []
    for values in (vectors, vectors * scale + 7):
        objective = likeness(16)
        for _ in range(500):
            objective(values, descriptors)
        losses.append(objective.eval()(values, descriptors).loss)
    torch.testing.assert_close(losses[0], losses[1], atol=0.02, rtol=0)


def test_evaluating_leaves_what_is_known_of_the_vectors_alone() -> None:
    descriptors = molecules()
    objective = likeness(8).eval()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective(torch.randn(ROWS, 8), descriptors)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_nothing_is_said_of_too_few_or_of_equal_molecules_that_is_not_finite() -> None:
    descriptors = molecules()
    objective = likeness(8)
    assert objective(torch.randn(FEWEST - 1, 8), descriptors[: FEWEST - 1]) is None
    same = torch.zeros(FEWEST, 8, requires_grad=True)
    loss = objective(same, descriptors[:1].expand(FEWEST, -1)).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()
