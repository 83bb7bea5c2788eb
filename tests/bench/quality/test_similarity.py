"""Frozen vectors of sentences are judged against what people said, beside bags of words and untrained encoders."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bench.quality.sentence_pairs import SentencePairs, bags_of_words, read_sentence_pairs
from bench.quality.similarity import cosine, judge
from bench.quality.similarity_command import similarity

MODELS = Path(__file__).parents[3] / "models"
WHO = ["a man", "a woman", "the dog", "two children", "an old farmer"]
WHAT = ["plays the guitar", "rides a horse", "eats bread", "runs along the beach", "sings"]
SENTENCES = [f"{who} {what}" for who in WHO for what in WHAT]


def pairs(seed: int, count: int) -> SentencePairs:
    """Pairs whose score is the number of halves they share."""
    chosen = np.random.default_rng(seed).integers(0, len(SENTENCES), (count, 2))
    score = [float(a // 5 == b // 5) + float(a % 5 == b % 5) for a, b in chosen]
    return SentencePairs([SENTENCES[a] for a, _ in chosen], [SENTENCES[b] for _, b in chosen], np.array(score))


def write(folder: Path, name: str, table: SentencePairs) -> None:
    rows = zip(table.score, table.first, table.second, strict=True)
    (folder / "text").mkdir(exist_ok=True)
    lines = [f"genre\tfile\tyear\tid\t{score}\t{first}\t{second}\n" for score, first, second in rows]
    (folder / "text" / name).write_text("".join(lines))


def test_cosines_are_the_same_of_dense_and_of_sparse_rows() -> None:
    first, second = np.array([[1, 2, 0], [0, 0, 0]], np.float32), np.array([[2, 4, 0], [1, 0, 0]], np.float32)
    assert cosine(first, second).tolist() == pytest.approx([1, 0])
    assert cosine(csr_matrix(first), csr_matrix(second)).tolist() == pytest.approx([1, 0])


def test_pairs_that_share_a_sentence_with_training_are_set_apart() -> None:
    seen = SentencePairs(["A", "B"], ["C", "D"], np.array([1.0, 2.0]))
    tested = SentencePairs(["E", "D", "F"], ["C", "G", "H"], np.array([1.0, 2.0, 3.0]))
    assert tested.without(seen).tolist() == [2]


def test_bags_of_words_know_no_case_and_no_order_and_weigh_what_is_rare() -> None:
    words = bags_of_words([*SENTENCES, "zebra"], SENTENCES)
    plain, weighted = (vectorize(["A MAN sings a", "sings a man", "zebra"]).toarray() for vectorize in words.values())
    for first, second, unseen in (plain, weighted):
        np.testing.assert_array_equal(first, second)
        assert np.count_nonzero(first) == 3
        assert np.count_nonzero(unseen) == 1
    assert set(plain[0]) == {0, 1}
    # "a" is in 18 of 25 sentences, "sings" in 5, "zebra" in none.
    assert 0 < weighted[0][weighted[0] > 0].min() < weighted[0].max() < weighted[2].max()


@pytest.mark.parametrize("regression", ["ridge", "SVM"])
def test_a_regression_learns_what_a_cosine_does_not_see(regression: str) -> None:

    def misleading(sentences: Sequence[str]) -> NDArray[np.float32]:
        """The halves of a sentence, small beside a random direction of its own."""
        rng = np.random.default_rng(5)
        loud = dict(zip(SENTENCES, rng.normal(size=(len(SENTENCES), 3)) * 20, strict=True))
        halves = [SENTENCES.index(one) for one in sentences]
        told = np.concatenate([np.eye(5)[[half // 5 for half in halves]], np.eye(5)[[half % 5 for half in halves]]], 1)
        return np.concatenate([told, [loud[one] for one in sentences]], axis=1).astype(np.float32)

    results = judge("v", misleading, pairs(1, 300), pairs(2, 200), (regression,))
    by_method = {one.method: one.pearson for one in results if one.pairs == "all"}
    assert by_method[regression] > 0.8 > by_method["cosine"]


def test_the_scores_of_the_tested_pairs_do_not_reach_the_regression() -> None:
    train, dev = pairs(1, 300), pairs(2, 200)
    upside_down = SentencePairs(dev.first, dev.second, -dev.score)
    vectorize = bags_of_words(SENTENCES, SENTENCES)["set of words"]
    straight, turned = (judge("v", vectorize, train, one, ("ridge",)) for one in (dev, upside_down))
    assert [one.pearson for one in turned] == pytest.approx([-one.pearson for one in straight])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(similarity, [str(argument) for argument in arguments])


def test_command_reports_every_encoder_and_its_controls(tmp_path: Path) -> None:
    write(tmp_path, "stsb-train.tsv", pairs(1, 60))
    write(tmp_path, "stsb-dev.tsv", pairs(2, 40))
    assert read_sentence_pairs(tmp_path, "text/stsb-dev.tsv:5:6:7").first == pairs(2, 40).first
    done = run(MODELS / "text" / "1", "--data", tmp_path, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "similarity.csv").open() as file:
        rows = list(csv.DictReader(file))
    everywhere = [row for row in rows if row["pairs"] == "all"]
    assert [(row["vectors"], row["method"]) for row in everywhere] == [
        (vectors, method)
        for vectors in ("text/1", "untrained text/1", "set of words", "set of words, weighted by rarity")
        for method in ("cosine", "ridge")
    ]
    assert {row["count"] for row in everywhere} == {"40"}
    assert all(-1 <= float(row[metric]) <= 1 for row in rows for metric in ("pearson", "spearman"))
    assert (tmp_path / "out" / "similarity.png").read_bytes().startswith(b"\x89PNG")
    assert "| text/1 | 512 |" in done.stdout
    assert done.stdout.strip() == (tmp_path / "out" / "similarity.md").read_text().strip()


def test_encoders_of_molecules_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert "No such file" in run(MODELS / "text" / "1", "--data", tmp_path, "-o", tmp_path).output
    write(tmp_path, "stsb-train.tsv", pairs(1, 60))
    write(tmp_path, "stsb-dev.tsv", pairs(2, 40))
    assert "smiles/1: reads molecules" in run(MODELS / "smiles" / "1", "--data", tmp_path, "-o", tmp_path).output
