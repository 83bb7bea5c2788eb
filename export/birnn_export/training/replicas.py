"""Several processes that train one model: each takes its share of the batches, and gradients are averaged.

torchrun starts them, see `LAUNCHER`. A step of N processes is one of a batch N times as large. What depends on one
process's clock or on validation is decided by the first.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

import torch
from torch import Tensor, distributed, nn

from birnn_export.training.batches import Rows
from birnn_export.training.errors import TrainingError

LAUNCHER = ("torchrun", "--standalone", "--no-python")

_PATIENCE = timedelta(days=1)
"""With the first process, which may prepare a large corpus for hours."""


def launched() -> int:
    """How many processes train together, by torchrun's environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Replicas:
    """This process among `count`; the one of `rank` 0 prepares, evaluates and writes."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @classmethod
    def join(cls, device: torch.device) -> Self:
        """Join the group that torchrun's environment describes, where there is one. Raises TrainingError for a GPU."""
        if (processes := launched()) == 1:
            return cls()
        if device.type != "cpu":
            raise TrainingError("several processes train one encoder on CPUs only: leave torchrun out, or --device cpu")
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        # Its threads must not outlive the interpreter.
        atexit.register(distributed.destroy_process_group)
        return cls(int(os.environ["RANK"]), processes)

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Let the first process through before the others, which find what it left behind."""
        if not self.first:
            distributed.barrier()
        yield
        if self.first and self.count > 1:
            distributed.barrier()

    @property
    def first(self) -> bool:
        """Whether this process is the one that decides."""
        return self.rank == 0

    def share(self, batches: list[Rows]) -> list[Rows]:
        """The batches that this process learns from, as many as every other one."""
        return batches[self.rank : len(batches) // self.count * self.count : self.count]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient the mean over all processes; one that a process, or every one, lacks counts as zero."""
        if self.count == 1:
            return
        gradients: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([one.flatten() for one in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        for one, mean in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
            one.copy_(mean.view_as(one))

    def share_buffers(self, buffers: Iterable[Tensor]) -> None:
        """Give every process what the first one knows beside its parameters, as the statistics of its vectors."""
        if self.count == 1:
            return
        own = [one for one in buffers if one.is_floating_point()]
        if own:
            flat = torch.cat([one.flatten() for one in own])
            distributed.broadcast(flat, 0)
            for one, known in zip(own, torch.split(flat, [one.numel() for one in own]), strict=True):
                one.copy_(known.view_as(one))

    def sum(self, value: int) -> int:
        """The sum of all processes' values."""
        if self.count == 1:
            return value
        total = torch.tensor(value)
        distributed.all_reduce(total)
        return int(total)

    def agree(self, *values: float) -> tuple[float, ...]:
        """The first process's values."""
        if self.count == 1:
            return values
        agreed = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(agreed, 0)
        return tuple(agreed.tolist())
