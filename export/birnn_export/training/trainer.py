"""The training loop: seeded, resumable to the exact step, stopped by patience, time or a signal."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.training import checkpoint
from birnn_export.training.batches import Rows, plan_batches
from birnn_export.training.curve import draw_curve
from birnn_export.training.dataset import Batch, Dataset
from birnn_export.training.device import resolve_device
from birnn_export.training.errors import TrainingError
from birnn_export.training.evaluations import cut_after, facts_of, summary_of
from birnn_export.training.objectives import Objectives
from birnn_export.training.position import Position
from birnn_export.training.replicas import Replicas
from birnn_export.training.schedule import learning_rate
from birnn_export.training.score import Score
from birnn_export.training.settings import TrainingSettings

Outcome = Literal["finished", "early", "time", "stopped"]


class Trainer:
    """One run in one checkpoint folder.

    Every random choice of a step is drawn from a generator seeded by (seed, step, rank), every epoch's batches by
    (seed, epoch): a resumed run repeats them without any saved generator state.
    """

    def __init__(
        self,
        path: Path,
        config: EncoderConfig,
        dataset: Dataset,
        settings: TrainingSettings,
        facts: dict[str, Any],
        replicas: Replicas | None = None,
    ) -> None:
        """`facts` goes into training.json, with the metrics; `replicas` are those that train together, by default none.

        Raises TrainingError for a device that cannot do it, and where there are more processes than batches.
        """
        self.path, self.dataset, self.settings, self.facts = path, dataset, settings, facts
        self.device = resolve_device(settings.device, settings.precision)
        self.replicas = replicas or Replicas()
        torch.manual_seed(settings.seed)
        self.encoder = SequenceEncoder(config)
        self.model = Objectives(self.encoder, dataset, settings.objectives, settings.mask_share).to(self.device)
        self.optimizer = torch.optim.AdamW(_decayed(self.model, settings.weight_decay), lr=settings.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.position = Position()
        self.steps_per_epoch = len(self._epoch(0))
        if not self.steps_per_epoch:
            raise TrainingError(
                f"fewer batches than {self.replicas.count} processes: start fewer, or make batches smaller"
            )
        self.total_steps = self.steps_per_epoch * settings.epochs
        if settings.max_steps is not None:
            self.total_steps = min(self.total_steps, settings.max_steps)
        self._began = 0.0

    def start(self, max_length: int) -> None:
        """Write the parts of the checkpoint that do not change, over whatever is there."""
        if not self.replicas.first:
            return
        for stale in (checkpoint.METRICS, checkpoint.WEIGHTS, checkpoint.STATE):
            (self.path / stale).unlink(missing_ok=True)
        checkpoint.write_start(self.path, self.encoder.config, self.dataset.tokenizer, max_length, self.facts)

    def resume(self) -> None:
        """Go back to the saved position. Raises CheckpointError when it cannot be read."""
        saved = checkpoint.read_state(self.path, self.model, self.optimizer)
        if scaler := saved.pop("scaler", None):
            self.scaler.load_state_dict(scaler)
        try:
            self.position = Position(**saved)
        except TypeError as error:
            raise checkpoint.CheckpointError(f"{self.path / checkpoint.STATE}: {error}") from error
        if self.replicas.first:
            cut_after(self.path / checkpoint.METRICS, self.position.step)

    def run(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Train until the epochs, the patience or the minutes are over, or until `stop` says so after a step.

        Leaves a checkpoint behind in every case but an exception. Raises TrainingError when the loss is not finite.
        """
        self._began = time.monotonic() - self.position.seconds
        outcome = self._loop(stop)
        # A process that ends before the first one has written ends that, too: torchrun stops all when one is gone.
        with self.replicas.first_goes_ahead():
            if self.replicas.first:
                self._end(outcome)
        return outcome

    def _end(self, outcome: Outcome) -> None:
        if outcome == "stopped":
            self._save()
        elif self.position.step % self.settings.evaluate_every:
            self._evaluate_and_save()
        if (self.path / checkpoint.METRICS).exists():
            draw_curve(self.path / checkpoint.METRICS, self.path / checkpoint.CURVE)

    def _loop(self, stop: Callable[[], bool]) -> Outcome:
        position, settings = self.position, self.settings
        bar = tqdm(
            total=self.total_steps,
            initial=position.step,
            unit="step",
            mininterval=1.0,
            disable=not self.replicas.first,
        )
        with bar:
            start_tokens, start_seconds = position.tokens, position.seconds
            while position.step < self.total_steps:
                if position.without_gain >= settings.patience:
                    return "early"
                if settings.max_minutes is not None and position.seconds >= 60 * settings.max_minutes:
                    return "time"
                epoch, first = divmod(position.step, self.steps_per_epoch)
                for rows in self._epoch(epoch)[first:]:
                    loss = self._step(rows)
                    self._agree()
                    speed = (position.tokens - start_tokens) / max(position.seconds - start_seconds, 1e-9)
                    shown = "nothing hidden" if loss is None else f"loss {loss:.4f}"
                    left = "" if (minutes := self._minutes_left()) is None else f", at most {minutes:.0f} min left"
                    bar.set_postfix_str(f"epoch {epoch + 1}, {shown}, {speed:,.0f} tokens/s{left}", refresh=False)
                    bar.update()
                    if position.step % settings.evaluate_every == 0:
                        if self.replicas.first:
                            bar.write(summary_of(self._evaluate_and_save()), file=sys.stderr)
                        self._agree()
                    if self.replicas.sum(int(stop())):
                        return "stopped"
                    if position.without_gain >= settings.patience or self._progress() >= 1:
                        break
        return "finished"

    def _agree(self) -> None:
        """Go by the first process's clock and patience."""
        seconds, without_gain = self.replicas.agree(time.monotonic() - self._began, self.position.without_gain)
        self.position.seconds, self.position.without_gain = seconds, int(without_gain)

    def _epoch(self, epoch: int) -> list[Rows]:
        rng = np.random.default_rng([self.settings.seed, epoch])
        batches = plan_batches(self.dataset.sequences.lengths, self.dataset.train, self.settings.batch_tokens, rng)
        return self.replicas.share(batches)

    def _minutes_left(self) -> float | None:
        """Until the time limit, which the bar's own estimate knows nothing of."""
        if self.settings.max_minutes is None:
            return None
        return max(0.0, self.settings.max_minutes - self.position.seconds / 60)

    def _progress(self) -> float:
        """Share of the schedule that is done: of the steps or, with a time limit, of the time if that is more."""
        done = self.position.step / self.total_steps
        if self.settings.max_minutes is not None:
            done = max(done, self.position.seconds / (60 * self.settings.max_minutes))
        return min(done, 1.0)

    def _rate(self) -> float:
        return learning_rate(self.settings, self.position.step, self._progress())

    def _step(self, rows: Rows) -> float | None:
        """Learn from one batch; gives its loss, or nothing where the batch held nothing to predict."""
        position, settings = self.position, self.settings
        dropout_seed, mask_seed = self._seeds()
        torch.manual_seed(dropout_seed)
        generator = torch.Generator().manual_seed(mask_seed)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        batch = self.dataset.batch(rows, self.device)
        scores = self._scores(batch, generator)
        position.step += 1
        position.tokens += self.replicas.sum(int(batch.lengths.sum()))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(scores) if scores else None
        if not self.replicas.sum(len(scores)):
            return None
        self.replicas.average_gradients(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.replicas.share_buffers(self.model.buffers())
        return loss

    def _seeds(self) -> tuple[int, int]:
        """For dropout and for what is hidden or drawn in this step; of one process alone those of the first."""
        entropy = [self.settings.seed, self.position.step, self.replicas.rank]
        dropout, hidden = np.random.SeedSequence(entropy).generate_state(2).tolist()
        return dropout, hidden

    def _backward(self, scores: dict[str, Score]) -> float:
        """Find the gradients of the loss and give it, once it is among the sums. Raises where it is not finite."""
        position = self.position
        total = self.model.total(scores)
        loss = float(total.detach())
        if not math.isfinite(loss):
            saved = (
                "the last checkpoint is intact" if (self.path / checkpoint.STATE).exists() else "nothing was saved yet"
            )
            raise TrainingError(
                f"the loss is {loss} at step {position.step}; {saved}: "
                "train again with a lower --learning-rate or a smaller --clip-norm"
            )
        torch.autograd.backward(self.scaler.scale(total))
        self.scaler.unscale_(self.optimizer)
        for name, value in {
            "total": loss,
            **{name: float(score.loss.detach()) for name, score in scores.items()},
        }.items():
            position.sums[name] = position.sums.get(name, 0.0) + value
            position.counts[name] = position.counts.get(name, 0) + 1
        return loss

    def _scores(self, batch: Batch, generator: torch.Generator) -> dict[str, Score]:
        reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.precision)
        context = torch.autocast(self.device.type, dtype=reduced) if reduced else contextlib.nullcontext()
        with context:
            scores: dict[str, Score] = self.model(batch, generator)
        return scores

    def evaluate(self) -> dict[str, float]:
        """Mean validation losses in full precision: the weighted total, each objective's, and accuracies."""
        lengths = self.dataset.sequences.lengths
        rng = np.random.default_rng(self.settings.seed)
        sums: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        generator = torch.Generator().manual_seed(self.settings.seed)
        self.model.eval()
        with torch.inference_mode():
            for rows in plan_batches(lengths, self.dataset.validation, self.settings.batch_tokens, rng):
                scores: dict[str, Score] = self.model(self.dataset.batch(rows, self.device), generator)
                for name, score in scores.items():
                    sums[name] += float(score.loss) * score.count
                    counts[name] += score.count
                    if score.accuracy is not None:
                        sums[f"{name} accuracy"] += float(score.accuracy) * score.count
                        counts[f"{name} accuracy"] += score.count
        self.model.train()
        means = {name: sums[name] / counts[name] for name in sums}
        total = sum(weight * means[name] for name, weight in self.settings.objectives.items() if name in means)
        return {"total": total, **means}

    def _evaluate_and_save(self) -> dict[str, Any]:
        position = self.position
        validation = self.evaluate()
        if not math.isfinite(validation["total"]):
            raise TrainingError(f"the validation loss is not finite at step {position.step}; lower --learning-rate")
        position.seconds = time.monotonic() - self._began
        line = {
            "step": position.step,
            "epoch": position.step / self.steps_per_epoch,
            "tokens": position.tokens,
            "seconds": round(position.seconds, 1),
            "learning_rate": self._rate(),
            "train": {name: position.sums[name] / position.counts[name] for name in position.sums},
            "validation": validation,
        }
        position.sums, position.counts = {}, {}
        if validation["total"] < position.best_loss:
            position.best_loss, position.best_step, position.without_gain = validation["total"], position.step, 0
            checkpoint.write_weights(self.path, self.encoder)
            self.facts["metrics"] = facts_of(line)
        else:
            position.without_gain += 1
        with (self.path / checkpoint.METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._save()
        return line

    def _save(self) -> None:
        if not (self.path / checkpoint.WEIGHTS).exists():
            checkpoint.write_weights(self.path, self.encoder)
        position = {**self.position.__dict__, "scaler": self.scaler.state_dict()}
        checkpoint.write_state(self.path, self.model, self.optimizer, position)
        checkpoint.write_training(self.path, self.facts)


def _decayed(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices decay, biases do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
