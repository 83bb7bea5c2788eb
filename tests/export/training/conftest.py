"""A few dozen molecules and the small datasets and trainers made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.corpus import ScoredPair
from birnn_export.encoders import EncoderConfig
from birnn_export.training.dataset import Dataset, DatasetSettings, add_pairs, prepare
from birnn_export.training.settings import TrainingSettings
from birnn_export.training.trainer import Trainer

_SMILES = """
C CC CCO CCN CC(C)O CC(C)N CCC CCCC CCCCO CC(=O)O CC(=O)N CC(=O)OC CCOC(=O)C CCCl CCBr c1ccccc1 Cc1ccccc1 Oc1ccccc1
Nc1ccccc1 Clc1ccccc1 Brc1ccccc1 Fc1ccccc1 OCc1ccccc1 CC(=O)c1ccccc1 OC(=O)c1ccccc1 COc1ccccc1 c1ccncc1 Cc1ccncc1
c1cc[nH]c1 c1ccoc1 c1ccsc1 C1CCCCC1 OC1CCCCC1 C1CCNCC1 C1COCCN1 CN1CCOCC1 CC(N)C(=O)O NCC(=O)O CS(=O)(=O)C CSC C#N
CC#N C=C CC=C C=CC=C O=C1CCCCC1 c1ccc2ccccc2c1 Cn1cnc2c1c(=O)n(C)c(=O)n2C CC(=O)Oc1ccccc1C(=O)O CC(=O)Nc1ccc(O)cc1
CC(C)Cc1ccc(C(C)C(=O)O)cc1 OCC(O)CO NC(=O)N OO N#N O=C=O ClC(Cl)Cl FC(F)(F)F CCOCC Cc1ccco1 CC(C)=O
"""
MOLECULES = _SMILES.split()

TEXT = [
    f"{subject} {verb} {thing}."
    for subject in ("A man", "A woman", "The dog", "A child")
    for verb in ("plays", "sees", "holds")
    for thing in ("a guitar", "the ball", "some bread", "a red car")
]

MakeTrainer = Callable[..., Trainer]


@pytest.fixture(scope="session")
def molecules() -> Dataset:
    settings = DatasetSettings(minimum_count=1, validation_share=0.2)
    objectives = {"masked": 1.0, "descriptors": 1.0, "fingerprint": 1.0}
    return prepare(MOLECULES, settings, objectives, exclude=[], workers=1)


@pytest.fixture(scope="session")
def sentences() -> Dataset:
    settings = DatasetSettings("text", vocab_size=320, validation_share=0.2)
    return prepare(TEXT, settings, {"contrast": 1.0, "tokens": 1.0, "next-tokens": 1.0}, exclude=[])


@pytest.fixture(scope="session")
def scored(sentences: Dataset) -> Dataset:
    """The sentences, and pairs of them scored by the words they share."""
    pairs = [ScoredPair(one, other, len(set(one.split()) & set(other.split()))) for one in TEXT for other in TEXT[::5]]
    settings = DatasetSettings("text", vocab_size=320, validation_share=0.2)
    return add_pairs(sentences, pairs, settings, alone=False)


@pytest.fixture(scope="session")
def make_trainer(molecules: Dataset) -> MakeTrainer:
    """Trainers of a small BiGRU on the molecules; any setting can be changed."""

    def make(path: Path, dataset: Dataset = molecules, architecture: str = "bigru", **changes: Any) -> Trainer:
        config = EncoderConfig(architecture, dataset.tokenizer.vocab_size, 8, 12, dropout=0.1)  # type: ignore[arg-type]
        values: dict[str, Any] = {
            "objectives": {"masked": 1.0, "descriptors": 1.0, "fingerprint": 1.0},
            "epochs": 3,
            "batch_tokens": 60,
            "warmup_steps": 2,
            "evaluate_every": 5,
            "learning_rate": 1e-2,
            "seed": 3,
            **changes,
        }
        facts = {"data": ["molecules"], "recipe": "birnn train", "objective": "masked", "sequences": 60}
        trainer = Trainer(path, config, dataset, TrainingSettings(**values), facts)
        trainer.start(max_length=256)
        return trainer

    return make
