"""Reading sequences of exact lengths from both ends: what every recurrent core written from the equations needs."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# One direction of one layer: all its states h_1..h_T, [B, T, H], while it reads x [B, T, F] from its first step on.
Reader = Callable[[Tensor], Tensor]


def token_mask(lengths: Tensor, steps: int) -> Tensor:
    """True where a token is, bool [B, T], from lengths [B]."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def reversed_steps(lengths: Tensor, steps: int) -> Tensor:
    """The step to read at each step so that every sequence is read backward over its own length, int64 [B, T].

    Step t of a sequence of n tokens maps to n - 1 - t; padding stays where it is. Applying it twice gives the identity.
    """
    step = torch.arange(steps, device=lengths.device)
    return torch.where(step < lengths[:, None], lengths[:, None] - 1 - step, step)


def take_steps(x: Tensor, index: Tensor) -> Tensor:
    """Reorder the steps of x [B, T, F] by index [B, T]."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def read_both_ways(x: Tensor, lengths: Tensor, forward: Reader, backward: Reader) -> tuple[Tensor, Tensor]:
    """One bidirectional layer: outputs [B, T, 2H], zero beyond each length, and final states [B, 2H].

    One reader gets X_1..X_n, the other X_n..X_1. The second one's states are flipped back, so that step t of both
    speaks of token t, and concatenated to the first one's.

    Args:
        x: What the layer reads, [B, T, F].
        lengths: int64 [B] on the device of `x`, each 1..T.
        forward: The forward direction.
        backward: The backward direction.
    """
    steps = x.shape[1]
    flipped = reversed_steps(lengths, steps)
    last = (lengths - 1)[:, None]
    f_states = forward(x)
    b_states = backward(take_steps(x, flipped))
    # The final state of either direction is the one after its n-th step: token n forward, token 1 backward.
    final = torch.cat([take_steps(f_states, last), take_steps(b_states, last)], dim=2)[:, 0]
    outputs = torch.cat([f_states, take_steps(b_states, flipped)], dim=2)
    return outputs.masked_fill(~token_mask(lengths, steps)[:, :, None], 0.0), final


def identity(x: Tensor) -> Tensor:
    """What is between layers where nothing is."""
    return x


def read_layers(
    x: Tensor,
    lengths: Tensor,
    layers: Iterable[tuple[Reader, Reader]],
    between: Callable[[Tensor], Tensor] = identity,
) -> tuple[Tensor, Tensor]:
    """Bidirectional layers, each of which reads the outputs of the one before: what the last one gives.

    Args:
        x: What the first layer reads, [B, T, F].
        lengths: int64 [B] on the device of `x`, each 1..T.
        layers: Forward and backward direction of each; at least one.
        between: What the outputs of a layer go through before the next one reads them.
    """
    for number, (forward, backward) in enumerate(layers):
        x, final = read_both_ways(x if number == 0 else between(x), lengths, forward, backward)
    return x, final
