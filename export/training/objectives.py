"""What an encoder is trained for. Each objective is a small head on the encoder and the loss on top of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bundle.tokenizer import MASK_ID
from export.directions import token_mask
from export.encoders import SequenceEncoder
from export.training.bag_start import RARITY
from export.training.dataset import Batch, Dataset
from export.training.descriptors import DESCRIPTOR_NAMES, DescriptorGroup, columns
from export.training.likeness import Likeness
from export.training.molecules import FINGERPRINT_BITS
from export.training.pairs import PairBatch
from export.training.standardization import Standardization

MASKED_ROWS = 0.25
"""Share of a batch's rows that the masked objective takes when others need the whole sequence."""

TEMPERATURE = 0.05
"""Of the softmax over cosines, as in SimCSE."""

_FIRST_TOKEN_ID = MASK_ID + 1


@dataclass(frozen=True)
class Score:
    """Mean loss over `count` items, and the share of them that were predicted right where that is defined."""

    loss: Tensor
    count: int
    accuracy: Tensor | None = None


def hide_tokens(
    ids: Tensor, lengths: Tensor, vocab_size: int, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide a share of the tokens as BERT does: 80% become the mask, 10% a random token, 10% stay.

    Returns the corrupted ids [B, T] and which tokens were chosen, bool [B, T]. The generator lives on the CPU.
    """
    is_token = token_mask(lengths, ids.shape[1])
    draw = torch.rand(ids.shape, generator=generator) / share
    random_ids = torch.randint(_FIRST_TOKEN_ID, vocab_size, ids.shape, generator=generator)
    chosen = is_token & (draw < 1)
    corrupted = ids.cpu().masked_fill(chosen & (draw < 0.8), MASK_ID)
    corrupted = torch.where(chosen & (draw >= 0.8) & (draw < 0.9), random_ids, corrupted)
    return corrupted.to(ids.device), chosen.to(ids.device)


class MaskedTokens(nn.Module):
    """Predicts hidden tokens from the per-token outputs."""

    def __init__(self, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.head = nn.Linear(encoder.config.token_dimension, encoder.config.vocab_size)

    def forward(self, outputs: Tensor, ids: Tensor, hidden: Tensor) -> Score | None:
        """Cross-entropy at the hidden tokens; nothing where none was hidden."""
        if not bool(hidden.any()):
            return None
        logits, wanted = self.head(outputs[hidden]), ids[hidden]
        accuracy = (logits.argmax(dim=1) == wanted).float().mean()
        return Score(F.cross_entropy(logits.float(), wanted), len(wanted), accuracy)


class Contrast(nn.Module):
    """Finds each sequence among the others of its batch from a copy with hidden tokens, by cosine.

    The loss of SimCSE (Gao et al., EMNLP 2021, section 3), with hidden tokens as the noise. A batch holds mostly
    sequences of one length, so that length gives nothing away.
    """

    def forward(self, corrupted: Tensor, pooled: Tensor) -> Score | None:
        """Loss of the pooled vectors [B, D] of the copies against those of the whole sequences."""
        if len(pooled) < 2:
            return None
        cosine = F.normalize(corrupted.float(), dim=1) @ F.normalize(pooled.float(), dim=1).T
        own = torch.arange(len(pooled), device=pooled.device)
        accuracy = (cosine.argmax(dim=1) == own).float().mean()
        return Score(F.cross_entropy(cosine / TEMPERATURE, own), len(pooled), accuracy)


class DescriptorRegression(nn.Module):
    """Mean squared error of a group of standardized descriptors from the pooled vector; 1 - loss is about their r2."""

    def __init__(self, encoder: SequenceEncoder, dataset: Dataset, group: DescriptorGroup) -> None:
        super().__init__()
        assert dataset.descriptors is not None
        self.columns = columns(group)
        values = dataset.descriptors[dataset.training_molecules(), self.columns]
        self.standardize = Standardization(values)
        self.head = nn.Linear(encoder.config.dimension, values.shape[1])

    def forward(self, pooled: Tensor, descriptors: Tensor) -> Score:
        """Loss over descriptors float32 [B, F] of all groups."""
        wanted = self.standardize(descriptors[:, self.columns])
        return Score(F.mse_loss(self.head(pooled).float(), wanted), len(wanted))


class FingerprintBits(nn.Module):
    """Binary cross-entropy of folded ECFP4 bits from the pooled vector.

    Summed over all bits and divided by the mean number of set ones: most bits are zero in most molecules, and a mean
    over all would make the loss vanish beside the others.
    """

    set_bits: Tensor

    def __init__(self, encoder: SequenceEncoder, dataset: Dataset) -> None:
        super().__init__()
        assert dataset.fingerprints is not None
        share = (
            np.unpackbits(dataset.fingerprints[dataset.training_molecules()], axis=1).mean(axis=0).clip(1e-4, 1 - 1e-4)
        )
        self.register_buffer("set_bits", torch.tensor(float(share.sum())))
        self.head = nn.Linear(encoder.config.dimension, FINGERPRINT_BITS)
        with torch.no_grad():
            self.head.bias.copy_(torch.from_numpy(np.log(share / (1 - share))))

    def forward(self, pooled: Tensor, fingerprints: Tensor) -> Score:
        """Loss over fingerprints float32 [B, FINGERPRINT_BITS] of zeros and ones."""
        logits = self.head(pooled).float()
        total = F.binary_cross_entropy_with_logits(logits, fingerprints, reduction="sum")
        return Score(total / (len(logits) * self.set_bits), len(logits))


class BagOfTokens(nn.Module):
    """The pooled vector predicts the bag of tokens of a sequence; frequent tokens weigh less.

    Cross-entropy of one softmax over the vocabulary against every token of the sequence, as in a paragraph vector
    (Le and Mikolov, 2014), weighted by a / (a + p).
    """

    weight: Tensor

    def __init__(self, encoder: SequenceEncoder, dataset: Dataset) -> None:
        super().__init__()
        counts = np.bincount(dataset.sequences.ids, minlength=encoder.config.vocab_size).astype(np.float64)
        weight = RARITY / (RARITY + counts / counts.sum())
        weight[:_FIRST_TOKEN_ID] = 0.0
        self.register_buffer("weight", torch.from_numpy(weight).float())
        self.head = nn.Linear(encoder.config.dimension, encoder.config.vocab_size)

    def forward(self, pooled: Tensor, ids: Tensor) -> Score | None:
        """Loss over the bags ids [B, S], padded with 0; rows without a token do not count."""
        weight = self.weight[ids]
        total = weight.sum(dim=1)
        filled = total > 0
        if not bool(filled.any()):
            return None
        log_likelihood = F.log_softmax(self.head(pooled).float(), dim=1).gather(1, ids)
        losses = -(weight * log_likelihood).sum(dim=1)[filled] / total[filled]
        return Score(losses.mean(), len(losses))


class Similarity(nn.Module):
    """The cosine of the vectors of two sequences tells how similar somebody found them.

    Mean squared error between the scores and a straight line over the cosine, which is learned: scores have their own
    scale, and the cosine of strangers need not be 0. Scores are standardized, so that 1 - loss is about their r2.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        assert dataset.partners is not None
        rows = dataset.train[dataset.partners.sequences.lengths[dataset.train] > 0]
        scores = dataset.partners.scores[rows].astype(np.float64)
        self.register_buffer("mean", torch.tensor(float(scores.mean())))
        self.register_buffer("deviation", torch.tensor(float(scores.std()) or 1.0))
        # From a deviation and a half below the mean at a cosine of 0 to as much above it at 1.
        self.line = nn.Parameter(torch.tensor([3.0, -1.5]))

    def forward(self, first: Tensor, second: Tensor, scores: Tensor) -> Score:
        """Loss of vectors [B, D] of both sides against scores [B]."""
        cosine = F.cosine_similarity(first.float(), second.float(), dim=1)
        wanted = (scores - self.mean) / self.deviation
        return Score(F.mse_loss(self.line[0] * cosine + self.line[1], wanted), len(wanted))


class Objectives(nn.Module):
    """All objectives of a run over one forward pass of the encoder.

    Some rows of the pass have hidden tokens and serve `masked`; the objectives that read the pooled vector get the
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
        self.heads = nn.ModuleDict()
        for name in weights:
            match name:
                case "masked":
                    self.heads[name] = MaskedTokens(encoder)
                case "contrast":
                    self.heads[name] = Contrast()
                case "descriptors" | "surfaces" | "groups":
                    self.heads[name] = DescriptorRegression(encoder, dataset, name)
                case "fingerprint":
                    self.heads[name] = FingerprintBits(encoder, dataset)
                case "likeness":
                    assert dataset.descriptors is not None
                    values = dataset.descriptors[dataset.training_molecules()]
                    self.heads[name] = Likeness(encoder.config.dimension, Standardization(values))
                case "similarity":
                    self.heads[name] = Similarity(dataset)
                case _:
                    self.heads[name] = BagOfTokens(encoder, dataset)

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
            targets: dict[str, Tensor | None] = {
                "fingerprint": batch.fingerprints,
                "tokens": batch.ids,
                "next-tokens": batch.next_ids,
            }
            for group in DESCRIPTOR_NAMES:
                targets[group] = batch.descriptors
            for name, target in targets.items():
                if name in self.heads and target is not None:
                    scores[name] = self.heads[name](pooled, target[whole])
            if "likeness" in self.heads and batch.descriptors is not None and batch.fingerprints is not None:
                loss = self.heads["likeness"](pooled, batch.descriptors[whole], batch.fingerprints[whole])
                scores["likeness"] = None if loss is None else Score(loss, len(pooled))
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
