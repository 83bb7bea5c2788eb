"""`birnn map`: draws a file of encodings as a picture or a page."""

from pathlib import Path

import click

# Other modules need these packages. They are imported here so that the error for a missing one names the extra.
import matplotlib as _matplotlib  # noqa: F401
import pyarrow as _pyarrow  # noqa: F401

from birnn.cli.distinct_files import check_distinct
from birnn.maps.colors import colors
from birnn.maps.page import draw_page
from birnn.maps.picture import draw_picture
from birnn.maps.points import MapError, read_points
from birnn.maps.projection import Method, project

FORMATS = (".html", ".png")


def check_format(context: click.Context, parameter: click.Parameter, vectors: Path) -> Path:
    """Reject a file whose suffix shows that it is not a .parquet file."""
    if vectors.suffix.lower() in (".npy", ".npz", ".csv"):
        raise click.BadParameter(
            f"{vectors} is no .parquet file, which holds the sequences beside their vectors: write one with "
            f"birnn encode --file FILE --out {vectors.with_suffix('.parquet')}"
        )
    return vectors


@click.command("map")
@click.argument("vectors", type=click.Path(path_type=Path, exists=True, dir_okay=False), callback=check_format)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write: a .html page or a .png picture."
)
@click.option(
    "--color-by",
    "color",
    default="",
    metavar="COLUMN",
    help="Column of VECTORS or of --table: numbers get a color scale, words a legend; "
    "rdkit:MolLogP computes a descriptor of each molecule.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The .csv file that was encoded, if the column is not in VECTORS.",
)
@click.option("--method", type=click.Choice(["pca", "umap"]), default="pca", show_default=True, help="How to project.")
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    default=5000,
    show_default=True,
    help="Maximum number of points; a sample beyond that.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the sample and of UMAP."
)
def map_vectors(
    vectors: Path, out: Path, color: str, table: Path | None, method: Method, limit: int, seed: int
) -> None:
    """Draw the vectors in VECTORS, a .parquet file, as points in two dimensions.

    \b
    birnn encode --file molecules.csv --column smiles --out vectors.parquet
    birnn map vectors.parquet --color-by rdkit:MolLogP -o map.html
    birnn map vectors.parquet --table molecules.csv --color-by solubility -o map.png

    The page needs no network. Point at a molecule to read it. Zoom with the mouse wheel.
    """
    if out.suffix.lower() not in FORMATS:
        raise click.UsageError(f"--out must end in {' or '.join(FORMATS)}, not {out.name!r}")
    if not out.parent.is_dir():
        raise click.UsageError(f"the folder {out.parent} does not exist")
    check_distinct({"VECTORS": vectors, "--table": table}, {"--out": out})
    if table is not None and not color:
        raise click.UsageError("--table goes with --color-by, which names one of its columns")
    try:
        points = read_points(vectors, color, table, limit, seed)
        places, axes = project(points.vectors, method, seed)
    except MapError as error:
        raise click.ClickException(str(error)) from error
    shown = colors(points.values)
    if color and shown is None:
        raise click.ClickException(f"no point has a value in {color!r} to color by")
    count = len(points.sequences)
    title = (
        f"{count:,} of {points.rows:,} rows of {vectors.name}"
        if count < points.rows
        else f"{vectors.name}, {count:,} rows"
    )
    try:
        if out.suffix.lower() == ".html":
            draw_page(out, places, axes, points.color, shown, title, points.sequences)
        else:
            draw_picture(out, places, axes, points.color, shown, title)
    except OSError as error:
        raise click.ClickException(f"{out}: cannot be written ({error.strerror or error})") from error
    if points.without_vector:
        click.echo(f"{points.without_vector} of the rows chosen have no vector and are not shown", err=True)
    click.echo(out)
