"""What each objective hides, reads and rewards."""

import numpy as np
import pytest
import torch

from birnn_bundle.tokenizer import MASK_ID
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.training.dataset import Dataset
from birnn_export.training.descriptors import DESCRIPTOR_NAMES, DescriptorGroup
from birnn_export.training.environments import CLASSES
from birnn_export.training.errors import TrainingError
from birnn_export.training.heads import (
    ATOMS,
    AtomEnvironments,
    BagOfEnvironments,
    Contrast,
    DescriptorRegression,
    Similarity,
)
from birnn_export.training.objectives import Objectives, hide_tokens
from birnn_export.training.settings import parse_objectives

CPU = torch.device("cpu")


def model(dataset: Dataset, *names: str, pooling: str = "final") -> Objectives:
    torch.manual_seed(0)
    config = EncoderConfig("bigru", dataset.tokenizer.vocab_size, 8, 12, pooling=pooling)  # type: ignore[arg-type]
    return Objectives(SequenceEncoder(config), dataset, dict.fromkeys(names, 1.0), mask_share=0.3)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_hidden_share_is_kept_and_padding_is_never_hidden() -> None:
    ids = torch.randint(3, 50, (200, 40), generator=generator())
    lengths = torch.randint(1, 41, (200,), generator=generator())
    corrupted, hidden = hide_tokens(ids, lengths, 50, 0.3, generator())
    is_token = torch.arange(40) < lengths[:, None]
    assert not hidden[~is_token].any()
    assert torch.equal(corrupted[~hidden], ids[~hidden])
    assert abs(hidden[is_token].float().mean() - 0.3) < 0.03
    assert abs((corrupted[hidden] == MASK_ID).float().mean() - 0.8) < 0.05
    assert 0.05 < (corrupted[hidden] == ids[hidden]).float().mean() < 0.15


def test_pooled_objectives_see_no_masks(molecules: Dataset) -> None:
    together = model(molecules, "masked", "descriptors")
    batch = molecules.batch(molecules.train[:8], CPU)
    scores = together(batch, generator())
    assert scores["descriptors"].count == 6
    with torch.no_grad():
        pooled = together.encoder(batch.ids, batch.lengths)[2:]
        assert batch.descriptors is not None
        expected = together.heads["descriptors"](pooled, batch.descriptors[2:])
    torch.testing.assert_close(scores["descriptors"].loss, expected.loss)


def test_masked_alone_uses_every_row(molecules: Dataset) -> None:
    batch = molecules.batch(molecules.train, CPU)
    _, hidden = hide_tokens(batch.ids, batch.lengths, molecules.tokenizer.vocab_size, 0.3, generator())
    assert model(molecules, "masked")(batch, generator())["masked"].count == int(hidden.sum())


def test_likeness_reads_descriptors_of_the_rows_without_masks(molecules: Dataset) -> None:
    together = model(molecules, "masked", "likeness").eval()
    batch = molecules.batch(molecules.train[:8], CPU)
    scores = together(batch, generator())
    assert scores["likeness"].count == 6
    assert batch.descriptors is not None
    with torch.no_grad():
        pooled = together.encoder(batch.ids, batch.lengths)[2:]
        expected = together.heads["likeness"](pooled, batch.descriptors[2:])
    torch.testing.assert_close(scores["likeness"].loss, expected.loss)


@pytest.mark.parametrize("group", DESCRIPTOR_NAMES)
def test_descriptors_are_standardized_cut_and_defined(molecules: Dataset, group: DescriptorGroup) -> None:
    regression = DescriptorRegression(model(molecules, "masked").encoder, molecules, group)
    with torch.no_grad():
        regression.head.weight.zero_()
        regression.head.bias.zero_()
    assert molecules.descriptors is not None
    values = torch.from_numpy(molecules.descriptors[molecules.train])
    varying = float((regression.standardize.deviation != 1).float().mean())
    # A head that always says the mean has the variance of the standardized values as its loss: 1, less what is cut.
    assert 0.5 * varying < regression(torch.zeros(len(values), 24), values).loss < 1.01
    undefined = torch.full_like(values[:2], torch.nan)
    assert regression(torch.zeros(2, 24), undefined).loss == 0
    assert len(regression.standardize.mean) == len(DESCRIPTOR_NAMES[group])
    enormous = torch.full_like(values[:2], 1e30)
    assert float(regression(torch.zeros(2, 24), enormous).loss.detach()) == pytest.approx(25.0)


def test_contrast_is_lowest_for_the_own_sequence() -> None:
    vectors = torch.eye(4)
    own = Contrast()(vectors, vectors)
    other = Contrast()(vectors, vectors.roll(1, 0))
    assert own.accuracy == 1
    assert other.accuracy == 0
    assert own.loss < 1e-6 < other.loss
    assert Contrast()(vectors[:1], vectors[:1]) is None


def test_text_objectives_score_every_row_that_has_a_target(sentences: Dataset) -> None:
    rows = np.arange(len(sentences.sequences) - 3, len(sentences.sequences))
    scores = model(sentences, "contrast", "tokens", "next-tokens", pooling="mean")(
        sentences.batch(rows, CPU), generator()
    )
    # The last sentence has no next one.
    assert {name: score.count for name, score in scores.items()} == {"contrast": 3, "tokens": 3, "next-tokens": 2}
    assert all(torch.isfinite(score.loss) for score in scores.values())


def test_weights_are_read_from_the_option() -> None:
    assert parse_objectives("masked:0.5, descriptors") == {"masked": 0.5, "descriptors": 1.0}


@pytest.mark.parametrize("text", ["", "mask", "masked,masked", "masked:x", "masked:0", "masked:-1", "masked:nan"])
def test_impossible_objectives_are_refused(text: str) -> None:
    with pytest.raises(TrainingError, match="objective"):
        parse_objectives(text)


def test_similarity_is_lowest_where_cosines_tell_the_scores(scored: Dataset) -> None:
    torch.manual_seed(0)
    similarity = Similarity(scored)
    angle = torch.linspace(0, torch.pi / 2, 50)
    first, second = torch.eye(2)[[0] * 50], torch.stack([angle.cos(), angle.sin()], dim=1)
    # The scores whose standardized values are the line itself.
    told = similarity.mean + similarity.deviation * (similarity.line[0] * angle.cos() + similarity.line[1]).detach()
    assert similarity(first, second * 7, told).loss < 1e-6
    assert similarity(first, second, told.flip(0)).loss > 0.5


def test_similarity_reads_both_sides_of_a_pair_and_no_masks(scored: Dataset) -> None:
    together = model(scored, "masked", "similarity", pooling="mean")
    corpus_rows, pairs = scored.train[:6], scored.train[-6:]
    batch = scored.batch(np.concatenate([corpus_rows[:2], pairs, corpus_rows[2:]]), CPU)
    scores = together(batch, generator())
    # A quarter of the twelve rows hide tokens: two of the corpus and the first pair.
    assert scores["similarity"].count == 5
    assert batch.pairs is not None
    with torch.no_grad():
        first = together.encoder(batch.ids, batch.lengths)[3:8]
        second = together.encoder(batch.pairs.ids, batch.pairs.lengths)[1:]
        expected = together.heads["similarity"](first, second, batch.pairs.scores[1:])
    torch.testing.assert_close(scores["similarity"].loss, expected.loss)
    assert "similarity" not in together(scored.batch(corpus_rows, CPU), generator())


def environments_of(rows: int, steps: int) -> torch.Tensor:
    """Random environments; about half of the tokens write no atom."""
    numbers = torch.stack([torch.randint(1, 1 + count, (rows, steps), generator=generator()) for count in CLASSES], 2)
    return numbers * (torch.rand(rows, steps, 1, generator=generator()) < 0.5)


def test_atoms_are_told_by_their_own_outputs(molecules: Dataset) -> None:
    head = AtomEnvironments(model(molecules, "masked").encoder)
    outputs = torch.randn(6, 9, head.head.in_features, requires_grad=True)
    environments = environments_of(6, 9)
    is_atom = environments.any(dim=2)
    score = head(outputs, environments, generator())
    assert score.count == int(is_atom.sum())
    score.loss.backward()
    assert outputs.grad is not None
    assert outputs.grad[is_atom].any(dim=1).all()
    assert not outputs.grad[~is_atom].any()
    assert head(outputs, torch.zeros_like(environments), generator()) is None


def test_no_more_atoms_are_asked_than_a_head_can_take(molecules: Dataset) -> None:
    head = AtomEnvironments(model(molecules, "masked").encoder)
    environments = torch.ones(30, 40, len(CLASSES), dtype=torch.int64)
    assert head(torch.randn(30, 40, head.head.in_features), environments, generator()).count == ATOMS


def test_rare_environments_ask_nothing_beside_frequent_ones(molecules: Dataset) -> None:
    head = AtomEnvironments(model(molecules, "masked").encoder)
    outputs = torch.randn(1, 2, head.head.in_features)
    both, small = torch.tensor([[[3, 4], [5, 0]]]), torch.tensor([[[3, 4], [0, 0]]])
    logits = head.head(outputs[0]).split(CLASSES, dim=1)
    losses = [torch.nn.functional.cross_entropy(one, torch.tensor([2, 4])) for one in logits[:1]]
    losses.append(torch.nn.functional.cross_entropy(logits[1][:1], torch.tensor([3])))
    torch.testing.assert_close(head(outputs, both, generator()).loss, sum(losses) / 2)
    expected = (losses[0] * 2 - torch.nn.functional.cross_entropy(logits[0][1:], torch.tensor([4])) + losses[1]) / 2
    torch.testing.assert_close(head(outputs, small, generator()).loss, expected)
    only_small = torch.tensor([[[3, 0], [5, 0]]])
    torch.testing.assert_close(head(outputs, only_small, generator()).loss, losses[0])


def test_a_bag_of_environments_is_the_mean_over_its_atoms(molecules: Dataset) -> None:
    head = BagOfEnvironments(model(molecules, "masked").encoder)
    pooled = torch.randn(3, head.head.in_features)
    environments = environments_of(3, 7)
    environments[2] = 0
    logits = head.head(pooled).split(CLASSES, dim=1)
    expected = []
    for column, one in enumerate(logits):
        likelihoods = torch.log_softmax(one, dim=1)
        rows = [row for row in range(3) if environments[row, :, column].any()]
        bags = [environments[row, :, column] for row in rows]
        losses = [-likelihoods[row, bag[bag > 0] - 1].mean() for row, bag in zip(rows, bags, strict=True)]
        expected.append(torch.stack(losses).mean())
    score = head(pooled, environments)
    torch.testing.assert_close(score.loss, torch.stack(expected).mean())
    assert score.count == 2
    assert head(pooled, torch.zeros_like(environments)) is None
