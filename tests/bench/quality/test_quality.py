"""Frozen vectors are judged by simple heads over folds, on any table, and reported as CSV, Markdown and a plot."""

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench.quality.baselines import BASELINES, rdkit_descriptors, token_counts
from bench.quality.behavior import invariance
from bench.quality.command import quality
from bench.quality.encoders import TorchEncoder, encode, open_encoder, untrained
from bench.quality.heads import HEADS, score
from bench.quality.table import Table, TableError, read_table
from birnn_bundle.smiles import SmilesTokenizer
from birnn_export.encoders import EncoderConfig, SequenceEncoder

BUNDLE = Path(__file__).parents[3] / "models" / "smiles" / "1"
RINGS = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "c1ccoc1"]
TAILS = ["", "C", "CC", "CCO", "CCN", "ClCC", "C(=O)O", "C(=O)N", "OC", "N#CC", "CCCC", "CC(C)C", "BrCC", "COC", "CS"]
MOLECULES = [f"{tail}{ring}" for ring in RINGS for tail in TAILS]


@pytest.fixture(scope="module")
def tiny() -> TorchEncoder:
    tokenizer = SmilesTokenizer.train(MOLECULES, 1)
    config = EncoderConfig("bigru", tokenizer.vocab_size, 8, 12, pooling="mean+max")
    return TorchEncoder("tiny", SequenceEncoder(config).eval(), tokenizer)


def table(target: list[float], fold: list[int] | None = None) -> Table:
    return Table("set", MOLECULES, np.array(target), None if fold is None else np.array(fold), 0)


def write(path: Path, rows: list[tuple[object, ...]], header: str = "smiles,value,fold") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def sizes() -> list[float]:
    return [float(len(one)) for one in MOLECULES]


def test_rows_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [(one, number, number % 3) for number, one in enumerate(MOLECULES)]
    path = write(tmp_path / "set.csv", [*rows, ("not a molecule", 1, 0), ("CCO", "none", 0), ("CCO", "nan", 0)])
    read = read_table(f"{path}:smiles:value:fold")
    assert read.smiles == MOLECULES
    assert read.left_out == 3
    assert read.task == "regression"
    # The file's own folds, each left out once.
    splits = read.splits(seed=0)
    assert [sorted(set((test % 3).tolist())) for _, test in splits] == [[0], [1], [2]]
    assert all(len(train) + len(test) == len(MOLECULES) for train, test in splits)


def test_random_folds_cover_every_row_once_and_depend_on_the_seed_alone() -> None:
    read = table(sizes())
    tested = np.concatenate([test for _, test in read.splits(seed=3)])
    assert sorted(tested.tolist()) == list(range(len(MOLECULES)))
    assert [test.tolist() for _, test in read.splits(3)] == [test.tolist() for _, test in read.splits(3)]
    assert [test.tolist() for _, test in read.splits(3)] != [test.tolist() for _, test in read.splits(4)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("set.csv", "is not FILE.csv:SMILES:TARGET"),
        ("set.csv:smiles:logS", "no column 'logS'; it has smiles, value, fold"),
        ("missing.csv:smiles:value", "No such file"),
        ("set.csv:smiles:value", "2 of 2 rows have a readable SMILES and a number; too few"),
    ],
)
def test_tables_that_cannot_be_used_are_explained(tmp_path: Path, entry: str, message: str) -> None:
    write(tmp_path / "set.csv", [("CCO", 1, 0), ("CCC", 2, 0)])
    with pytest.raises(TableError, match=message):
        read_table(entry, folder=tmp_path)


@pytest.mark.parametrize("head", HEADS)
def test_heads_find_a_signal_that_is_there_and_none_that_is_not(head: str) -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=len(MOLECULES))
    noise = rng.normal(size=(2, len(target))) * 0.05
    telling = np.stack([target + noise[0], noise[1] - target, np.ones(len(target))], axis=1).astype(np.float32)
    silent = rng.normal(size=(len(target), 3)).astype(np.float32)
    found = score("v", telling, table(target.tolist()), head, seed=0)
    missed = score("v", silent, table(target.tolist()), head, seed=0)
    assert found.metrics.keys() == {"r2", "RMSE"}
    assert len(found.metrics["r2"]) == 5
    assert np.mean(found.metrics["RMSE"]) < np.mean(missed.metrics["RMSE"])
    assert np.mean(found.metrics["r2"]) > 0.5 > 0.3 > np.mean(missed.metrics["r2"])


@pytest.mark.parametrize("head", HEADS)
def test_zeros_and_ones_are_classified_and_scored_by_auc(head: str) -> None:
    aromatic = table([float("c" in one) for one in MOLECULES])
    assert aromatic.task == "classification"
    result = score("counts", token_counts(MOLECULES), aromatic, head, seed=0)
    assert result.metrics.keys() == {"AUC"}
    assert np.mean(result.metrics["AUC"]) > 0.9


def test_baselines_have_a_finite_row_for_each_molecule() -> None:
    for vectorize in BASELINES.values():
        values = vectorize(["CCO", "[Na+].[Cl-]", "c1ccccc1"])
        assert len(values) == 3
        assert np.isfinite(values).all()
    assert rdkit_descriptors(["CCO"]).shape[1] >= 200
    assert token_counts(["CCO", "CN"]).tolist() == [[2, 0, 1], [1, 1, 0]]


def test_encoding_keeps_the_order_whatever_the_lengths(tiny: TorchEncoder) -> None:
    together = encode(tiny, MOLECULES)
    for row in (0, 17, 59):
        np.testing.assert_allclose(together[row], encode(tiny, [MOLECULES[row]])[0], atol=1e-6)
    with pytest.raises(ValueError, match="x y"):
        encode(tiny, ["CCO", "x y"])


def test_bundle_and_untrained_encoder_have_one_shape_and_differ() -> None:
    bundle = open_encoder(BUNDLE)
    assert bundle.name == "smiles/1"
    random = untrained(bundle, seed=0)
    assert random.shape == bundle.shape
    first, second = encode(bundle, MOLECULES[:3]), encode(random, MOLECULES[:3])
    assert first.shape == second.shape
    assert not np.allclose(first, second, atol=0.1)
    np.testing.assert_array_equal(encode(untrained(bundle, seed=0), MOLECULES[:3]), second)


def test_invariance_is_perfect_for_vectors_that_do_not_see_the_order() -> None:
    class Counter(TorchEncoder):
        def run(self, batch):  # type: ignore[no-untyped-def]
            read = [self.tokenizer.decode(batch.row(row).tolist()) for row in range(len(batch))]
            return np.array([[one.count(letter) for letter in "COlNS"] for one in read], np.float32)

    tokenizer = SmilesTokenizer.train(MOLECULES, 1)
    counter = Counter("counts", SequenceEncoder(EncoderConfig("bigru", 8, 4, 4)), tokenizer)
    straight = ["CCO", "CCCN", "CCCCCl", "CCS"]
    seen = invariance(counter, straight)
    assert seen.same == pytest.approx(1)
    assert seen.same_p5 == pytest.approx(1)
    assert seen.different < 0.95
    assert seen.found == 1


def run(*arguments: object) -> Result:
    return CliRunner().invoke(quality, [str(argument) for argument in arguments])


def test_command_reports_every_encoder_and_baseline_on_every_table(tmp_path: Path) -> None:
    sized = write(tmp_path / "sizes.csv", [(one, len(one), 0) for one in MOLECULES])
    aromatic = write(tmp_path / "aromatic.csv", [(one, int("c" in one), n % 2) for n, one in enumerate(MOLECULES)])
    done = run(BUNDLE, "--table", f"{sized}:smiles:value", "--table", f"{aromatic}:smiles:value:fold", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    vectors = ["smiles/1", "untrained smiles/1", "ECFP4 counts", "RDKit descriptors", "token counts"]
    seen = [(row["table"], row["vectors"], row["head"], row["metric"]) for row in rows]
    assert len(seen) == len(set(seen)) == len(vectors) * len(HEADS) * 3  # r2 and RMSE, and AUC
    assert {row["vectors"] for row in rows} == set(vectors)
    assert {row["metric"] for row in rows if row["table"] == "aromatic"} == {"AUC"}
    assert {len(row["folds"].split()) for row in rows if row["table"] == "aromatic"} == {2}
    with (tmp_path / "encoders.csv").open() as file:
        (facts,) = csv.DictReader(file)
    assert float(facts["different"]) < float(facts["same"]) <= 1
    assert float(facts["sequences_per_second"]) > 0
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert "| smiles/1 | 512 |" in (tmp_path / "quality.md").read_text()
    assert done.stdout.strip() == (tmp_path / "quality.md").read_text().strip()


def test_one_head_and_no_baselines_where_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "sizes.csv", [(one, len(one), 0) for one in MOLECULES])
    done = run(BUNDLE, "--table", f"{path}:smiles:value", "--no-baselines", "--head", "kNN", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "ridge" not in done.stdout
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 3


def test_without_a_table_nothing_can_be_judged(tmp_path: Path) -> None:
    assert run(BUNDLE, "-o", tmp_path).exit_code == 2
    assert "No such file" in run(BUNDLE, "--data", tmp_path, "-o", tmp_path).output
