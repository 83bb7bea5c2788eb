"""`birnn map` as a user runs it."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from birnn.cli.main import main

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "OCC</script>", "CCCl"]
VECTORS = np.random.default_rng(5).normal(size=(6, 8)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "vectors.parquet", solubility=[0.5, -1.0, 2.0, None, 1.0, 0.0])


def write(path: Path, vectors: NDArray[np.float32] | list[Any] = VECTORS, **columns: list[Any]) -> Path:
    count = len(vectors)
    width = pyarrow.list_(pyarrow.float32(), 8)
    table = {
        "line": pyarrow.array(range(2, count + 2), pyarrow.int64()),
        "sequence": [SMILES[row % len(SMILES)] for row in range(count)],
        "embedding": pyarrow.array([None if one is None else list(one) for one in vectors], width),
        **columns,
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=4)
    return path


def draw(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["map", *map(str, arguments)])


def shown(page: Path) -> dict[str, Any]:
    """What the page shows: the JSON within it."""
    text = page.read_text()
    begin = text.index('id="data">') + len('id="data">')
    values: dict[str, Any] = json.loads(text[begin : text.index("</script>", begin)])
    return values


def test_page_holds_the_principal_components_and_the_numbers_that_color_them(file: Path, tmp_path: Path) -> None:
    done = draw(file, "--color-by", "solubility", "-o", tmp_path / "map.html")
    assert done.exit_code == 0, done.output
    data = shown(tmp_path / "map.html")
    places = np.array([data["x"], data["y"]]).T
    centered = VECTORS - VECTORS.mean(axis=0)
    variances = np.sort(np.linalg.eigvalsh(np.cov(centered.T)))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), variances[:2], rtol=1e-3)
    # Distances along the components are distances in the span of the two leading directions.
    leading = np.linalg.svd(centered)[2][:2]
    np.testing.assert_allclose(np.abs(places), np.abs(centered @ leading.T), atol=1e-3)
    assert data["sequences"] == SMILES
    assert data["values"] == [0.5, -1.0, 2.0, None, 1.0, 0.0]
    assert data["low"] < 0 < data["high"]
    assert f"{variances[0] / variances.sum():.0%}" in data["axes"][0]


def test_page_needs_no_network(file: Path, tmp_path: Path) -> None:
    draw(file, "-o", tmp_path / "map.html")
    text = (tmp_path / "map.html").read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert " src=" not in text
    assert "@import" not in text


def test_words_become_a_legend_and_many_of_them_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"scaffold {min(row, 11)}" for row in range(30)]
    path = write(tmp_path / "v.parquet", rng.normal(size=(30, 8)).astype(np.float32), scaffold=words)
    assert draw(path, "--color-by", "scaffold", "-o", tmp_path / "map.html").exit_code == 0
    data = shown(tmp_path / "map.html")
    assert data["categories"][0] == "scaffold 11"
    assert data["categories"][-1] == "others"
    assert len(data["categories"]) == 10
    assert [data["categories"][value] for value in data["values"][:8]] == words[:8]
    assert data["categories"][data["values"][10]] == "others"


def test_column_comes_from_the_table_that_was_encoded_by_line(file: Path, tmp_path: Path) -> None:
    table = tmp_path / "molecules.csv"
    table.write_text("smiles,measured\n" + "".join(f"{one},{number}\n" for number, one in enumerate(SMILES)))
    done = draw(file, "--table", table, "--color-by", "measured", "-o", tmp_path / "map.html")
    assert done.exit_code == 0, done.output
    assert shown(tmp_path / "map.html")["values"] == [0, 1, 2, 3, 4, 5]


def test_descriptor_of_the_molecules_colors_them(file: Path, tmp_path: Path) -> None:
    done = draw(file, "--color-by", "rdkit:MolWt", "-o", tmp_path / "map.html")
    assert done.exit_code == 0, done.output
    data = shown(tmp_path / "map.html")
    assert data["color"] == "MolWt"
    assert data["values"][0] == pytest.approx(46.07, abs=0.01)
    assert data["values"][4] is None  # not a molecule


def test_picture_shows_the_colors(file: Path, tmp_path: Path) -> None:
    for name, arguments in (("plain", ()), ("colored", ("--color-by", "solubility"))):
        done = draw(file, *arguments, "-o", tmp_path / f"{name}.png")
        assert done.exit_code == 0, done.output
    plain, colored = ((tmp_path / f"{name}.png").read_bytes() for name in ("plain", "colored"))
    assert plain.startswith(b"\x89PNG")
    assert colored.startswith(b"\x89PNG")
    assert plain != colored


def test_rows_without_a_vector_are_counted_and_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "v.parquet", [VECTORS[0], None, VECTORS[2], VECTORS[3]])
    done = draw(path, "-o", tmp_path / "map.html")
    assert "1 of the rows chosen have no vector" in done.stderr
    assert shown(tmp_path / "map.html")["sequences"] == [SMILES[0], SMILES[2], SMILES[3]]


def test_sample_is_of_the_limit_repeatable_and_keeps_rows_together(tmp_path: Path) -> None:
    vectors = np.zeros((50, 8), np.float32)
    vectors[:, 0] = np.arange(50)
    path = write(tmp_path / "v.parquet", vectors, row=list(range(50)))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw(path, "--limit", 10, "--seed", seed, "--color-by", "row", "-o", tmp_path / f"{name}.html")
    first, again, other = (shown(tmp_path / f"{name}.html") for name in "abc")
    assert first == again
    assert first["values"] != other["values"]
    assert len(first["values"]) == 10
    assert "10 of 50" in first["title"]
    # One direction has all the variance: along it, places differ as the row numbers do.
    np.testing.assert_allclose(np.abs(np.diff(first["x"])), np.diff(first["values"]), rtol=1e-3)
    assert np.allclose(first["y"], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--color-by", "pH"), "no column 'pH' to color by; there are line, sequence, embedding, solubility"),
        (("--color-by", "rdkit:Nonsense"), "RDKit has no descriptor 'Nonsense'"),
        (("--method", "umap"), "pip install umap-learn"),
    ],
)
def test_what_cannot_be_drawn_is_explained(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    done = draw(file, *arguments, "-o", tmp_path / "map.html")
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "map.html").exists()


def test_files_that_are_no_vectors_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("CCO")
    assert "cannot be read as .parquet" in draw(text, "-o", tmp_path / "map.html").stderr
    other = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2]}), other)
    assert "has no column 'embedding'" in draw(other, "-o", tmp_path / "map.html").stderr
    tokens = tmp_path / "tokens.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"embedding": [[[1.0]], [[1.0], [2.0]]]}), tokens)
    assert "encode without --tokens" in draw(tokens, "-o", tmp_path / "map.html").stderr


def test_usage_is_checked_before_anything_is_read(file: Path, tmp_path: Path) -> None:
    assert draw(file, "-o", tmp_path / "map.pdf").exit_code == 2
    assert draw(file, "-o", tmp_path / "missing" / "map.png").exit_code == 2
    assert draw(file, "--table", file, "-o", tmp_path / "map.png").exit_code == 2


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv"])
def test_files_without_sequences_say_what_a_map_needs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    done = CliRunner().invoke(main, ["map", str(tmp_path / name)])
    assert done.exit_code == 2
    assert "is no .parquet file" in done.stderr
    assert f"birnn encode --file FILE --out {tmp_path / 'x.parquet'}" in " ".join(done.stderr.split())


def test_a_map_never_replaces_its_vectors(file: Path, tmp_path: Path) -> None:
    (tmp_path / "map.html").hardlink_to(file)
    content = file.read_bytes()
    done = CliRunner().invoke(main, ["map", str(file), "--out", str(tmp_path / "map.html")])
    assert done.exit_code == 2
    assert "are the same file" in done.stderr
    assert file.read_bytes() == content
