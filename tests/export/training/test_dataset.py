"""From a corpus to tokenized, split rows with their targets."""

import numpy as np
import pytest
import torch

from birnn_bundle.corpus import ScoredPair
from birnn_bundle.tokenizer import UNKNOWN_ID
from birnn_export.training.dataset import Dataset, DatasetSettings, add_pairs, prepare
from birnn_export.training.descriptors import DESCRIPTOR_NAMES
from birnn_export.training.errors import TrainingError
from birnn_export.training.molecules import FINGERPRINT_BITS, canonical_smiles

from .conftest import MOLECULES, TEXT


def decoded(dataset: Dataset) -> list[str]:
    return [dataset.tokenizer.decode(dataset.sequences.row(row).tolist()) for row in range(len(dataset.sequences))]


def test_what_cannot_be_used_is_left_out_and_counted() -> None:
    corpus = [*MOLECULES, "CCO", "C C", "C1CC", "C" * 90]
    settings = DatasetSettings(minimum_count=1, validation_share=0.2, max_length=80)
    dataset = prepare(corpus, settings, {"descriptors": 1.0}, exclude=["OCC", "C(N)C"], workers=1)
    assert dataset.left_out == {"repeated": 1, "unreadable": 2, "excluded": 2, "longer than 80 tokens": 1}
    assert len(dataset.sequences) == len(MOLECULES) - 2
    assert not {"CCO", "CCN"} & set(decoded(dataset))


def test_split_covers_everything_once_and_does_not_depend_on_the_rest(molecules: Dataset) -> None:
    assert sorted([*molecules.train, *molecules.validation]) == list(range(len(MOLECULES)))
    settings = DatasetSettings(minimum_count=1, validation_share=0.2)
    half = prepare(MOLECULES[::2], settings, {"masked": 1.0}, exclude=[])
    everywhere = {MOLECULES[row] for row in molecules.validation}
    assert {decoded(half)[row] for row in half.validation} == everywhere & set(MOLECULES[::2])


def test_batch_has_the_targets_of_its_own_rows(molecules: Dataset) -> None:
    rows = np.array([2, 0, 30])
    batch = molecules.batch(rows, torch.device("cpu"))
    assert batch.ids.dtype == torch.int64
    assert batch.lengths.tolist() == molecules.sequences.lengths[rows].tolist()
    assert batch.ids[1, 1:].tolist() == [0] * (batch.ids.shape[1] - 1)
    assert batch.descriptors is not None
    assert batch.descriptors.shape == (3, sum(map(len, DESCRIPTOR_NAMES.values())))
    alone = molecules.batch(np.array([30]), torch.device("cpu"))
    assert alone.descriptors is not None
    assert torch.equal(batch.descriptors[2], alone.descriptors[0])
    assert batch.fingerprints is not None
    assert batch.fingerprints.shape == (3, FINGERPRINT_BITS)
    assert set(batch.fingerprints.flatten().tolist()) == {0.0, 1.0}


def test_likeness_brings_what_it_compares_with() -> None:
    settings = DatasetSettings(minimum_count=1, validation_share=0.2)
    dataset = prepare(MOLECULES, settings, {"likeness": 1.0}, exclude=[], workers=1)
    assert dataset.descriptors is not None
    assert len(dataset.descriptors) == len(dataset.sequences)
    assert dataset.fingerprints is None


def test_random_spellings_train_with_the_targets_of_their_molecule_and_stay_on_its_side() -> None:
    settings = DatasetSettings(minimum_count=1, validation_share=0.2, spellings=3)
    dataset = prepare(MOLECULES, settings, {"descriptors": 1.0, "fingerprint": 1.0}, exclude=[], workers=1)
    assert dataset.descriptors is not None
    assert len(dataset.descriptors) == len(MOLECULES)
    assert len(dataset.sequences) == 4 * len(MOLECULES)
    spelled = decoded(dataset)
    for row, molecule in enumerate(dataset.molecule):
        if UNKNOWN_ID in dataset.sequences.row(row):
            continue  # An aromatic oxygen, in molecules of the validation side only.
        assert canonical_smiles([spelled[row]]) == canonical_smiles([MOLECULES[molecule]])
    assert spelled[:20] == MOLECULES[:20]
    trained, validated = set(dataset.molecule[dataset.train]), set(dataset.molecule[dataset.validation])
    assert not trained & validated
    # All spellings train; the corpus's own and one random one validate.
    assert len(dataset.train) == 4 * len(trained)
    assert len(dataset.validation) == 2 * len(validated)
    assert dataset.training_molecules().tolist() == sorted(trained)
    rows = np.flatnonzero(dataset.molecule == 7)
    batch = dataset.batch(rows, torch.device("cpu"))
    assert batch.fingerprints is not None
    assert bool((batch.fingerprints == batch.fingerprints[0]).all())


def test_next_sequence_is_the_following_one_and_the_last_has_none(sentences: Dataset) -> None:
    last = len(TEXT) - 1
    batch = sentences.batch(np.array([0, last]), torch.device("cpu"))
    assert batch.next_ids is not None
    following = [token for token in batch.next_ids[0].tolist() if token]
    assert sentences.tokenizer.decode(following) == TEXT[1]
    assert not batch.next_ids[1].any()


def test_text_is_excluded_by_equality() -> None:
    settings = DatasetSettings("text", vocab_size=300, validation_share=0.2)
    dataset = prepare(TEXT, settings, {"tokens": 1.0}, exclude=TEXT[:3])
    assert decoded(dataset) == TEXT[3:]


def test_rare_smiles_tokens_are_unknown() -> None:
    settings = DatasetSettings(minimum_count=4, validation_share=0.2)
    dataset = prepare(MOLECULES, settings, {"masked": 1.0}, exclude=[])
    assert (dataset.sequences.ids == UNKNOWN_ID).any()


@pytest.mark.parametrize(
    ("settings", "objective", "corpus", "message"),
    [
        (DatasetSettings("text"), "descriptors", TEXT, "needs molecules"),
        (DatasetSettings(validation_share=1e-9), "masked", MOLECULES, "0 to validate with"),
        (DatasetSettings(), "masked", ["?§", "x y"], "0 sequences are left to train on"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    settings: DatasetSettings, objective: str, corpus: list[str], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        prepare(corpus, settings, {objective: 1.0}, exclude=[])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(TrainingError, match="tokenizer must be one of"):
        DatasetSettings("words")
    with pytest.raises(TrainingError, match="validation share"):
        DatasetSettings(validation_share=1.0)
    with pytest.raises(TrainingError, match="max length"):
        DatasetSettings(max_length=0)
    with pytest.raises(TrainingError, match="only molecules have random spellings"):
        DatasetSettings("text", spellings=2)
    with pytest.raises(TrainingError, match="at least 300"):
        DatasetSettings("text", vocab_size=200)


def test_a_pair_validates_as_soon_as_one_of_its_sides_does(sentences: Dataset) -> None:
    pairs = [ScoredPair(one, other, 1.0) for one in TEXT for other in TEXT]
    settings = DatasetSettings("text", vocab_size=320, validation_share=0.2)
    both, alone = (add_pairs(sentences, pairs, settings, alone=only) for only in (False, True))
    before = len(sentences.sequences)
    np.testing.assert_array_equal(both.train[: len(sentences.train)], sentences.train)
    np.testing.assert_array_equal(both.train[len(sentences.train) :], alone.train)
    held_out = {TEXT[row] for row in sentences.validation}
    for rows, validates in ((alone.train, False), (alone.validation, True)):
        sides = [pairs[row - before] for row in rows]
        assert all((one.first in held_out or one.second in held_out) == validates for one in sides)
    assert len(alone.train) + len(alone.validation) == len(pairs)
    assert both.digest != sentences.digest


def test_partners_belong_to_their_rows(sentences: Dataset) -> None:
    pairs = [
        ScoredPair(one, other, float(number)) for number, (one, other) in enumerate(zip(TEXT, TEXT[::-1], strict=True))
    ]
    too_long = ScoredPair("A man " * 300, "A man", 3.0)
    dataset = add_pairs(sentences, [too_long, *pairs], DatasetSettings("text", validation_share=0.2), alone=False)
    assert dataset.left_out == {"longer than 256 tokens": 1}
    before = len(sentences.sequences)
    batch = dataset.batch(np.array([before + 7, 0, before + 2]), torch.device("cpu"))
    assert batch.pairs is not None
    assert batch.pairs.rows.tolist() == [0, 2]
    assert batch.pairs.scores.tolist() == [7, 2]
    partners = [ids[:length] for ids, length in zip(batch.pairs.ids.tolist(), batch.pairs.lengths, strict=True)]
    assert [dataset.tokenizer.decode(one) for one in partners] == [TEXT[-8], TEXT[-3]]
    assert dataset.batch(np.array([0]), torch.device("cpu")).pairs is None


def test_pairs_that_cannot_be_trained_on_are_refused(sentences: Dataset, molecules: Dataset) -> None:
    pair = ScoredPair(TEXT[0], TEXT[1], 1.0)
    with pytest.raises(TrainingError, match="give more pairs"):
        add_pairs(sentences, [pair], DatasetSettings("text"), alone=True)
    with pytest.raises(TrainingError, match="need the text tokenizer"):
        add_pairs(molecules, [pair], DatasetSettings(), alone=True)
    with pytest.raises(TrainingError, match="c and C are two atoms"):
        DatasetSettings(lowercase=True)
