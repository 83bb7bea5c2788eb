"""Sequences made ready for training: tokenized, split, with the targets that the objectives need."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birnn_bundle.corpus import ScoredPair
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.smiles import SmilesTokenizer
from birnn_bundle.smiles import split as split_smiles
from birnn_bundle.text import TextTokenizer
from birnn_bundle.tokenizer import SequenceError, Tokenizer
from birnn_export.training.batches import Rows, to_tensor
from birnn_export.training.descriptors import DESCRIPTOR_NAMES
from birnn_export.training.environments import atom_environments, classify
from birnn_export.training.errors import TrainingError
from birnn_export.training.molecules import FINGERPRINT_BITS, Molecules, canonical_smiles, describe_molecules
from birnn_export.training.pairs import PairBatch, Partners, tokenize_pairs
from birnn_export.training.settings import MOLECULE_OBJECTIVES
from birnn_export.training.spellings import random_spellings

TOKENIZER_KINDS = ("smiles", "text")


@dataclass(frozen=True)
class Batch:
    """One batch on its device: ids int64 [B, T], lengths int64 [B] (on the CPU) and the targets of its rows.

    descriptors: float32 [B, F], all groups, not standardized. fingerprints: float32 [B, FINGERPRINT_BITS].
    environments: int64 [B, T, 2], the numbers of the environments of the atom that a token writes, see
    `environments.classify`. next_ids int64 [B, S]: the sequence that follows in the corpus, padded with 0; empty rows
    have none. pairs: what some rows are compared with.
    """

    ids: Tensor
    lengths: Tensor
    descriptors: Tensor | None = None
    fingerprints: Tensor | None = None
    environments: Tensor | None = None
    next_ids: Tensor | None = None
    pairs: PairBatch | None = None


@dataclass(frozen=True)
class Dataset:
    """Tokenized sequences, split into training and validation rows by a hash of each sequence.

    A molecule may have several rows: the SMILES of the corpus and random spellings of it, all on one side of the split.
    """

    tokenizer: Tokenizer
    sequences: RaggedBatch
    train: Rows
    validation: Rows
    molecule: NDArray[np.intp]
    """For each row of `sequences`, its row of `descriptors` and `fingerprints`."""
    descriptors: NDArray[np.float32] | None
    fingerprints: NDArray[np.uint8] | None
    with_next: bool
    left_out: dict[str, int]
    """How many sequences of the corpus were not used, by reason."""
    digest: str
    """SHA-256 of the sequences in use, in order: a resumed run must see the same ones."""
    partners: Partners | None = None
    """What each row of `sequences` is compared with."""
    environments: NDArray[np.uint16] | None = None
    """Of each token of `sequences`, the environments of its atom: [tokens, 2], see `environments.classify`."""

    def batch(self, rows: Rows, device: torch.device) -> Batch:
        """The batch of these rows."""
        chosen = self.sequences.take(rows)
        descriptors = fingerprints = environments = next_ids = None
        if self.descriptors is not None:
            descriptors = torch.from_numpy(self.descriptors[self.molecule[rows]]).to(device)
        if self.fingerprints is not None:
            bits = np.unpackbits(self.fingerprints[self.molecule[rows]], axis=1, count=FINGERPRINT_BITS)
            fingerprints = torch.from_numpy(bits).to(device, torch.float32)
        if self.environments is not None:
            environments = torch.from_numpy(self._environments(rows)).to(device, torch.int64)
        if self.with_next:
            next_ids = to_tensor(self._next(rows)).to(device)
        return Batch(
            to_tensor(chosen).to(device),
            torch.from_numpy(chosen.lengths),
            descriptors,
            fingerprints,
            environments,
            next_ids,
            None if self.partners is None else self.partners.of(rows, device),
        )

    def training_molecules(self) -> Rows:
        """The rows of `descriptors` and `fingerprints` that are trained on, each once."""
        return np.unique(self.molecule[self.train])

    def _environments(self, rows: Rows) -> NDArray[np.int32]:
        """Environments [B, T, 2] of these rows, padded with 0."""
        assert self.environments is not None
        starts, lengths = self.sequences.offsets[rows], self.sequences.lengths[rows]
        step = np.arange(lengths.max())
        is_token = step < lengths[:, None]
        padded = self.environments[np.where(is_token, starts[:, None] + step, 0)].astype(np.int32)
        padded[~is_token] = 0
        return padded

    def _next(self, rows: Rows) -> RaggedBatch:
        nothing = np.empty(0, np.int32)
        last = len(self.sequences) - 1
        return RaggedBatch.from_lists(self.sequences.row(row + 1) if row < last else nothing for row in rows)


@dataclass(frozen=True)
class DatasetSettings:
    """How a corpus becomes a `Dataset`."""

    tokenizer: str = "smiles"
    max_length: int = 256
    """Sequences of more tokens are left out."""
    vocab_size: int = 8192
    """Of the text tokenizer."""
    minimum_count: int = 10
    """Occurrences below which a SMILES token is unknown."""
    validation_share: float = 0.01
    spellings: int = 0
    """Random SMILES of each molecule to train on, beside the one in the corpus."""
    lowercase: bool = False
    """Whether the text tokenizer reads capitals as small letters."""

    def __post_init__(self) -> None:
        if self.tokenizer not in TOKENIZER_KINDS:
            raise TrainingError(f"tokenizer must be one of {', '.join(TOKENIZER_KINDS)}, not {self.tokenizer!r}")
        if not 0 < self.validation_share < 1:
            raise TrainingError(f"validation share must lie between 0 and 1, not {self.validation_share}")
        if self.spellings and self.tokenizer != "smiles":
            raise TrainingError("only molecules have random spellings: use the smiles tokenizer")
        if self.lowercase and self.tokenizer != "text":
            raise TrainingError("only text can be read in lower case: in SMILES, c and C are two atoms")
        if self.max_length < 1:
            raise TrainingError(f"max length must be at least 1, not {self.max_length}")
        if self.vocab_size < 300 and self.tokenizer == "text":
            raise TrainingError(
                f"vocab size must be at least 300 (256 bytes and room for merges), not {self.vocab_size}"
            )


def prepare(
    corpus: list[str],
    settings: DatasetSettings,
    objectives: dict[str, float],
    exclude: list[str],
    workers: int | None = None,
    cache: Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> Dataset:
    """Clean, describe, tokenize and split a corpus.

    Repeated sequences are used once. `exclude` is left out: molecules by canonical SMILES, text by equality. What
    RDKit computes is kept in the folder `cache`. A `tokenizer` from a checkpoint is used as it is, otherwise one is
    trained on the training split. Raises TrainingError where objectives and tokenizer do not fit or too little is left.
    """
    molecular = settings.tokenizer == "smiles"
    if (wrong := MOLECULE_OBJECTIVES & objectives.keys()) and not molecular:
        raise TrainingError(f"objective {min(wrong)!r} needs molecules: use it with the smiles tokenizer")
    sequences = list(dict.fromkeys(corpus))
    left_out = {"repeated": len(corpus) - len(sequences)}
    molecules: Molecules | None = None
    if molecular and (exclude or settings.spellings or MOLECULE_OBJECTIVES & objectives.keys()):
        molecules = describe_molecules(sequences, frozenset(canonical_smiles(exclude)), workers, cache)
    keep = _usable(sequences, exclude, molecular, molecules, left_out)
    kept = np.flatnonzero(keep)
    sequences = [sequences[row] for row in kept]
    spellings = random_spellings(sequences, settings.spellings, workers, cache) if settings.spellings else []
    held_out = np.fromiter((_is_held_out(one, settings.validation_share) for one in sequences), bool, len(sequences))
    if tokenizer is None:
        training_split = [one for one, out in zip(sequences, held_out, strict=True) if not out]
        tokenizer = (
            SmilesTokenizer.train(training_split, settings.minimum_count)
            if molecular
            else TextTokenizer.train(training_split, settings.vocab_size, settings.lowercase)
        )
    everything = [*sequences, *chain.from_iterable(spellings)]
    tokenized = tokenizer.tokenize([one.encode() for one in everything], settings.max_length)
    left_out[f"longer than {settings.max_length} tokens"] = len(tokenized.errors)
    molecule = np.concatenate([np.arange(len(sequences)), np.repeat(np.arange(len(sequences)), settings.spellings)])
    # The first spelling of a molecule is the corpus's own, the second the first random one: these two validate.
    validates = np.arange(len(everything)) < len(sequences)
    validates[len(sequences) :: max(1, settings.spellings)] = True
    molecule, validates = molecule[tokenized.rows], validates[tokenized.rows]
    train, validation = np.flatnonzero(~held_out[molecule]), np.flatnonzero(held_out[molecule] & validates)
    if not len(train) or not len(validation):
        raise TrainingError(
            f"{len(train)} sequences are left to train on and {len(validation)} to validate with; "
            "give more sequences or another validation share"
        )
    environments = None
    if {"atoms", "environments"} & objectives.keys():
        # The environments of the corpus's own SMILES tell which are frequent.
        found = atom_environments([everything[row] for row in tokenized.rows], workers, cache)
        own = int(tokenized.batch.offsets[np.searchsorted(tokenized.rows, len(sequences))])
        environments = classify(found, frequent_in=found[:own])
    described = bool({*DESCRIPTOR_NAMES, "likeness"} & objectives.keys())
    fingerprinted = "fingerprint" in objectives
    return Dataset(
        tokenizer=tokenizer,
        sequences=tokenized.batch,
        train=train,
        validation=validation,
        molecule=molecule,
        descriptors=molecules.descriptors[kept] if molecules is not None and described else None,
        fingerprints=molecules.fingerprints[kept] if molecules is not None and fingerprinted else None,
        with_next="next-tokens" in objectives,
        left_out={reason: count for reason, count in left_out.items() if count},
        digest=hashlib.sha256("\n".join(everything).encode()).hexdigest(),
        environments=environments,
    )


def add_pairs(dataset: Dataset, pairs: list[ScoredPair], settings: DatasetSettings, alone: bool) -> Dataset:
    """`dataset` with a row for each of `pairs`: its first sequence, which has the second one as its partner.

    A pair is on the side of validation as soon as one of its sequences is, by the hash that splits the corpus. With
    `alone` the other rows are not trained on: no objective wants them. Raises TrainingError for molecules, and where
    too few pairs are left.
    """
    if settings.tokenizer != "text":
        raise TrainingError("scored pairs need the text tokenizer")
    first, partners, kept = tokenize_pairs(pairs, dataset.tokenizer, settings.max_length)
    share = settings.validation_share
    held_out = np.fromiter(
        (_is_held_out(pairs[row].first, share) or _is_held_out(pairs[row].second, share) for row in kept),
        bool,
        len(kept),
    )
    before = len(dataset.sequences)
    train, validation = before + np.flatnonzero(~held_out), before + np.flatnonzero(held_out)
    if len(train) < 2 or len(validation) < 2:
        raise TrainingError(
            f"{len(train)} pairs are left to train on and {len(validation)} to validate with; "
            "give more pairs or another validation share"
        )
    if not alone:
        train, validation = np.concatenate([dataset.train, train]), np.concatenate([dataset.validation, validation])
    none = RaggedBatch(np.empty(0, np.int32), np.zeros(before + 1, np.int64))
    too_long = f"longer than {settings.max_length} tokens"
    left_out = dataset.left_out | {too_long: dataset.left_out.get(too_long, 0) + len(pairs) - len(kept)}
    return replace(
        dataset,
        sequences=RaggedBatch.concatenate([dataset.sequences, first]),
        train=train,
        validation=validation,
        molecule=np.arange(before + len(first)),
        partners=Partners(
            RaggedBatch.concatenate([none, partners.sequences]),
            np.concatenate([np.zeros(before, np.float32), partners.scores]),
        ),
        left_out={reason: count for reason, count in left_out.items() if count},
        digest=hashlib.sha256(f"{dataset.digest}\n{pairs}".encode()).hexdigest(),
    )


def _usable(
    sequences: list[str], exclude: list[str], molecular: bool, molecules: Molecules | None, left_out: dict[str, int]
) -> NDArray[np.bool_]:
    """Which sequences can be used; why the others cannot is counted in `left_out`."""
    if not molecular:
        excluded = set(exclude)
        keep = np.fromiter((one not in excluded for one in sequences), bool, len(sequences))
        left_out["excluded"] = int((~keep).sum())
        return keep
    readable = np.fromiter(map(_is_readable, sequences), bool, len(sequences))
    left_out["unreadable"] = int((~readable).sum())
    if molecules is None:
        return readable
    left_out["excluded"] = molecules.excluded
    left_out["unreadable"] += int((readable & ~molecules.usable).sum()) - molecules.excluded
    usable: NDArray[np.bool_] = readable & molecules.usable
    return usable


def _is_readable(smiles: str) -> bool:
    try:
        return bool(split_smiles(smiles))
    except SequenceError:
        return False


def _is_held_out(sequence: str, share: float) -> bool:
    # By hash, so that a sequence stays on its side whatever else the corpus holds.
    digest = hashlib.blake2b(sequence.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
