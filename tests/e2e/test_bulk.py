"""`birnn bulk` and a real server give the same vectors, to the bit."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import birnn
from birnn.options import ElementType as ElementTypeName
from birnn_bulk.bulk_encoder import BulkEncoder, Job, Task
from birnn_bulk.encoders import bundle_folder, manifest_of
from birnn_bulk.part_file import PARTS_FOLDER
from birnn_bulk.plan import Part
from birnn_bulk.rows import FIELDS
from birnn_service.vectors import ElementType
from tests.bulk.jobs import bulk, vectors
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, ServerProcess

SMALL = "smiles-small"
# Equal ones, unknown tokens, and what cannot be read: nothing changes its neighbors.
STRINGS = [*molecules(300), "CCO", "[Xx]", "C%", "", "C" * 2000, "CCO", *molecules(50)]


def test_files_hold_what_a_server_replies(server: ServerProcess, tmp_path: Path) -> None:
    for name, rows in (("a", STRINGS[:200]), ("b", STRINGS[200:])):
        pq.write_table(pa.table({"smiles": rows, "id": range(len(rows))}), tmp_path / f"{name}.parquet")
    out = tmp_path / "out"
    bulk(
        *(tmp_path / "a.parquet", tmp_path / "b.parquet", "-o", out, "--encoder", SMALL, "--models", MODELS),
        *("--column", "smiles", "--keep", "id", "--part-rows", 64),
        status=1,
    )
    with birnn.Client(server.address) as client:
        replies = list(client.stream(STRINGS, SMALL))
    expected = np.concatenate([reply.vectors for reply in replies])
    table = pq.read_table(out / PARTS_FOLDER)
    failed = np.isnan(expected[:, 0])
    assert failed.sum() == 3
    assert table.column("embedding").is_null().to_numpy().tolist() == failed.tolist()
    np.testing.assert_array_equal(vectors(out)[~failed], expected[~failed])
    errors = [error.reason for reply in replies for error in reply.errors]
    assert [text for text in table.column("error").to_pylist() if text is not None] == errors
    unknown = sum(notice.unknown_tokens for reply in replies for notice in reply.notices)
    assert sum(table.column("unknown_tokens").to_pylist()) == unknown > 0
    assert table.column("sequence").to_pylist() == STRINGS
    assert table.column("id").to_pylist() == [*range(200), *range(len(STRINGS) - 200)]


@pytest.mark.parametrize("element_type", ["float16", "int8"])
@pytest.mark.parametrize("normalize", [False, True])
def test_other_forms_are_those_of_a_server(
    server: ServerProcess, tmp_path: Path, element_type: ElementTypeName, normalize: bool
) -> None:
    bundle = bundle_folder(SMALL, str(MODELS))
    (tmp_path / PARTS_FOLDER).mkdir()
    kind = ElementType(element_type)
    encoder = BulkEncoder(Job(bundle, manifest_of(bundle)[1], "cpu", "auto", "fp32", kind, normalize, True, tmp_path))
    rows = pa.table(
        [range(len(STRINGS)), [text.encode() for text in STRINGS], [None] * len(STRINGS)], schema=pa.schema(FIELDS)
    )
    encoder.encode(Task("plan", Part(0, 0, 0, len(STRINGS)), "a.smi", rows))
    table = pq.read_table(tmp_path / PARTS_FOLDER)
    found = vectors(tmp_path)
    if kind is ElementType.INT8:
        found = found * table.column("scale").to_numpy(zero_copy_only=False).astype(np.float32)[:, None]
    with birnn.Client(server.address, element_type=element_type) as client:
        replies = list(client.stream(STRINGS, SMALL, truncate=True, normalize=normalize))
    expected = np.concatenate([reply.vectors for reply in replies])
    good = ~np.isnan(expected[:, 0])
    assert good.sum() == len(STRINGS) - 2
    np.testing.assert_array_equal(found[good], expected[good])
    assert table.column("embedding").is_valid().to_numpy().tolist() == good.tolist()
    assert table.column("truncated_tokens").to_pylist()[STRINGS.index("C" * 2000)] > 0
