"""What an encoder is trained for: the objectives of a run over one pass of the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from birnn_bundle.tokenizer import MASK_ID
from birnn_export.directions import token_mask
from birnn_export.encoders import SequenceEncoder
from birnn_export.training.dataset import Batch, Dataset
from birnn_export.training.descriptors import DESCRIPTOR_NAMES
from birnn_export.training.heads import FIRST_TOKEN_ID, make_head
from birnn_export.training.pairs import PairBatch
from birnn_export.training.score import Score

MASKED_ROWS = 0.25
"""Share of a batch's rows that the masked objective takes when others need the whole sequence."""


def hide_tokens(
    ids: Tensor, lengths: Tensor, vocab_size: int, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide a share of the tokens as BERT does: 80% become the mask, 10% a random token, 10% stay.

    Returns the corrupted ids [B, T] and which tokens were chosen, bool [B, T]. The generator lives on the CPU.
    """
    is_token = token_mask(lengths, ids.shape[1])
    draw = torch.rand(ids.shape, generator=generator) / share
    random_ids = torch.randint(FIRST_TOKEN_ID, vocab_size, ids.shape, generator=generator)
    chosen = is_token & (draw < 1)
    corrupted = ids.cpu().masked_fill(chosen & (draw < 0.8), MASK_ID)
    corrupted = torch.where(chosen & (draw >= 0.8) & (draw < 0.9), random_ids, corrupted)
    return corrupted.to(ids.device), chosen.to(ids.device)


class Objectives(nn.Module):
    """All objectives of a run over one forward pass of the encoder.

    Some rows of the pass have hidden tokens and serve `masked`; the objectives that read whole sequences get the
    others, because an encoding should not learn to see masks. Beside such objectives, `masked` takes a quarter of a
    batch's rows; with `contrast`, every row passes twice, hidden and whole.
    """

    def __init__(
        self, encoder: SequenceEncoder, dataset: Dataset, weights: dict[str, float], mask_share: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.weights = weights
        self.mask_share = mask_share
        self.heads = nn.ModuleDict({name: make_head(name, encoder, dataset) for name in weights})

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Score]:
        """Score of each objective that finds something to predict in this batch."""
        count = self._hidden_rows(len(batch.ids))
        corrupted, hidden = hide_tokens(
            batch.ids[:count], batch.lengths[:count], self.encoder.config.vocab_size, self.mask_share, generator
        )
        whole = slice(0 if "contrast" in self.heads else count, None)
        ids, lengths = batch.ids[whole], batch.lengths[whole]
        outputs, final = self.encoder.run(torch.cat([corrupted, ids]), torch.cat([batch.lengths[:count], lengths]))
        scores: dict[str, Score | None] = {}
        if "masked" in self.heads:
            scores["masked"] = self.heads["masked"](outputs[:count], batch.ids[:count], hidden)
        if len(ids):
            pooled = self.encoder.pool(outputs[count:], final[count:], lengths)
            if "contrast" in self.heads:
                of_corrupted = self.encoder.pool(outputs[:count], final[:count], lengths)
                scores["contrast"] = self.heads["contrast"](of_corrupted, pooled)
            targets: dict[str, tuple[Tensor | None, ...]] = {
                "fingerprint": (batch.fingerprints,),
                "environments": (batch.environments,),
                "likeness": (batch.descriptors,),
                "tokens": (batch.ids,),
                "next-tokens": (batch.next_ids,),
                **dict.fromkeys(DESCRIPTOR_NAMES, (batch.descriptors,)),
            }
            for name in [name for name in self.heads if name in targets]:
                wanted = [target[whole] for target in targets[name] if target is not None]
                if len(wanted) == len(targets[name]):
                    scores[name] = self.heads[name](pooled, *wanted)
            if "atoms" in self.heads and batch.environments is not None:
                scores["atoms"] = self.heads["atoms"](outputs[count:], batch.environments[whole], generator)
            if "similarity" in self.heads and batch.pairs is not None:
                scores["similarity"] = self._similarity(pooled, batch.pairs, len(batch.ids) - len(ids))
        return {name: score for name, score in scores.items() if score is not None}

    def _similarity(self, pooled: Tensor, pairs: PairBatch, skipped: int) -> Score | None:
        """Score of those pairs whose first side is in `pooled`, which lacks the first rows of the batch."""
        here = pairs.rows >= skipped
        if not bool(here.any()):
            return None
        ids, lengths = pairs.ids[here], pairs.lengths[here.cpu()]
        partners = self.encoder(ids, lengths)
        score: Score = self.heads["similarity"](pooled[pairs.rows[here] - skipped], partners, pairs.scores[here])
        return score

    def _hidden_rows(self, rows: int) -> int:
        if "contrast" in self.heads or self.heads.keys() == {"masked"}:
            return rows
        return round(MASKED_ROWS * rows) if "masked" in self.heads else 0

    def total(self, scores: dict[str, Score]) -> Tensor:
        """The weighted sum of the losses."""
        return torch.stack([self.weights[name] * score.loss.float() for name, score in scores.items()]).sum()
