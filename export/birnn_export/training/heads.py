"""Heads on an encoder, each with the loss on top of it: one an objective."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from birnn_bundle.tokenizer import MASK_ID
from birnn_export.encoders import SequenceEncoder
from birnn_export.training.bag_start import RARITY
from birnn_export.training.dataset import Dataset
from birnn_export.training.descriptors import DescriptorGroup, columns
from birnn_export.training.environments import CLASSES
from birnn_export.training.likeness import Likeness
from birnn_export.training.molecules import FINGERPRINT_BITS
from birnn_export.training.score import Score
from birnn_export.training.standardization import Standardization

TEMPERATURE = 0.05
"""Of the softmax over cosines, as in SimCSE."""

ATOMS = 512
"""Atoms of a batch whose environments are asked for: the softmax over all of them would cost more than the encoder."""

FIRST_TOKEN_ID = MASK_ID + 1
"""Ids below are special."""


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


class AtomEnvironments(nn.Module):
    """Tells which environments each atom is in from the per-token outputs, both directions together.

    Cross-entropy over the environments of each radius that are frequent enough to have a number, at no more than
    `ATOMS` atoms of a batch.
    """

    def __init__(self, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.head = nn.Linear(encoder.config.token_dimension, sum(CLASSES))

    def forward(self, outputs: Tensor, environments: Tensor, generator: torch.Generator) -> Score | None:
        """Loss of outputs [B, T, 2H] against environments int64 [B, T, len(CLASSES)], 0 where there is none."""
        atoms = environments.any(dim=2).nonzero()
        atoms = atoms[torch.randperm(len(atoms), generator=generator)[:ATOMS].to(atoms.device)]
        if not len(atoms):
            return None
        rows, steps = atoms.unbind(1)
        logits = self.head(outputs[rows, steps]).float().split(CLASSES, dim=1)
        losses, right = [], []
        for one, wanted in zip(logits, (environments[rows, steps] - 1).unbind(1), strict=True):
            known = wanted >= 0
            if bool(known.any()):
                losses.append(F.cross_entropy(one[known], wanted[known]))
                right.append((one[known].argmax(dim=1) == wanted[known]).float().mean())
        return Score(torch.stack(losses).mean(), len(atoms), torch.stack(right).mean())


class BagOfEnvironments(nn.Module):
    """The pooled vector predicts the bag of atom environments of a molecule: one softmax a radius."""

    def __init__(self, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.head = nn.Linear(encoder.config.dimension, sum(CLASSES))

    def forward(self, pooled: Tensor, environments: Tensor) -> Score | None:
        """Loss of pooled [B, D] against environments int64 [B, T, len(CLASSES)], 0 where there is none."""
        losses = []
        logits = self.head(pooled).float().split(CLASSES, dim=1)
        for one, numbers in zip(logits, environments.unbind(2), strict=True):
            known = (numbers > 0).float()
            counts = known.sum(dim=1)
            if not bool(counts.any()):
                continue
            log_likelihood = F.log_softmax(one, dim=1).gather(1, (numbers - 1).clamp(min=0))
            losses.append((-(log_likelihood * known).sum(dim=1) / counts.clamp(min=1))[counts > 0].mean())
        return Score(torch.stack(losses).mean(), int(environments.any(dim=(1, 2)).sum())) if losses else None


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
        weight[:FIRST_TOKEN_ID] = 0.0
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


def make_head(name: str, encoder: SequenceEncoder, dataset: Dataset) -> nn.Module:
    """The head of an objective by its name, see `settings.OBJECTIVE_NAMES`."""
    match name:
        case "masked":
            return MaskedTokens(encoder)
        case "contrast":
            return Contrast()
        case "descriptors" | "surfaces" | "groups":
            return DescriptorRegression(encoder, dataset, name)
        case "fingerprint":
            return FingerprintBits(encoder, dataset)
        case "atoms":
            return AtomEnvironments(encoder)
        case "environments":
            return BagOfEnvironments(encoder)
        case "likeness":
            assert dataset.descriptors is not None
            values = dataset.descriptors[dataset.training_molecules()]
            return Likeness(encoder.config.dimension, Standardization(values))
        case "similarity":
            return Similarity(dataset)
        case _:
            return BagOfTokens(encoder, dataset)
