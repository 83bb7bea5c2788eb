"""The file of one part: Parquet, with the part's entry of the manifest in its footer, so that both appear at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from birnn.vector_files.vector_file import MALFORMED, readable
from birnn_bulk.plan import Part
from birnn_bundle.atomic_file import replacing
from birnn_bundle.strict_model import StrictModel
from birnn_service.encoded import Encoded

PARTS_FOLDER = "parts"
ENTRY_KEY = b"birnn.part"
OWN_COLUMNS = (
    *("input", "line", "sequence", "embedding", "scale"),
    *("error_code", "error", "unknown_tokens", "truncated_tokens"),
)
"""Names that no column that is kept may have."""


class Entry(StrictModel):
    """What the manifest says of a part.

    Attributes:
        plan: Digest of the plan.
        part: Its number.
        input: Name of the input.
        start, stop: From which of its records to which, from 0.
        input_digest: SHA-256 of its sequences; see `birnn_bulk.bulk_encoder`.
        encoder_digest: SHA-256 of the encoder's manifest.
        engine: What computed.
        distinct: How many sequences were computed: equal ones are computed once.
        failed: Records without a vector.
        noticed: Records with unknown or cut tokens.
    """

    plan: str
    part: int
    input: str
    start: int
    stop: int
    input_digest: str
    encoder_digest: str
    engine: str
    distinct: int
    failed: int
    noticed: int


def part_path(folder: Path, number: int) -> Path:
    """The file of a part; in order of their names, the files are the output in order."""
    return folder / PARTS_FOLDER / f"part-{number:06}.parquet"


def write_part(folder: Path, entry: Entry, rows: pa.Table, encoded: Encoded) -> None:
    """Write the file of a part as a whole or not at all.

    Args:
        folder: Of the output.
        entry: What the manifest is to say.
        rows: The records; see `birnn_bulk.rows.Rows`.
        encoded: Their outcomes, aligned.

    Raises:
        OSError: It cannot be written.
    """
    columns = _columns(entry, rows, encoded)
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    table = pa.Table.from_arrays(
        list(columns.values()), schema=schema.with_metadata({ENTRY_KEY: entry.model_dump_json().encode()})
    )
    # Numbers of vectors hardly repeat: dictionaries and compression of them only cost time.
    small = [name for name in columns if name not in ("embedding", "scale")]
    with replacing(part_path(folder, entry.part)) as file:
        pq.write_table(
            table,
            file,
            row_group_size=max(1, len(table)),
            use_dictionary=["input", "error_code", "error"],
            compression=dict.fromkeys(small, "zstd") | {"embedding.list.element": "none", "scale": "none"},
            write_statistics=small,
            write_page_checksum=True,
        )


def read_entry(folder: Path, part: Part, plan: str) -> Entry | None:
    """The entry of a part that is done; None where it is not, or its file is damaged or of another plan."""
    path = part_path(folder, part.number)
    try:
        found = Entry.model_validate_json(pq.read_metadata(path).metadata[ENTRY_KEY])
    except (FileNotFoundError, pa.ArrowException, KeyError, TypeError, ValidationError):
        return None
    return found if (found.plan, found.part) == (plan, part.number) else None


def _columns(entry: Entry, rows: pa.Table, encoded: Encoded) -> dict[str, Any]:
    count = len(rows)
    codes, reasons = _errors(rows.column(2).to_pylist(), encoded)
    failed = np.array([code is not None for code in codes], dtype=bool)
    unknown, truncated = np.zeros((2, count), np.int64)
    for notice in encoded.notices:
        unknown[notice.index], truncated[notice.index] = notice.unknown_tokens, notice.truncated_tokens
    sequences = [readable(sequence) for sequence in rows.column(1).to_pylist()]
    numbers, mask = pa.array(np.ascontiguousarray(encoded.values).ravel()), pa.array(failed)
    scale = {} if encoded.scales is None else {"scale": pa.array(encoded.scales, mask=failed)}
    return {
        "input": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [entry.input]),
        "line": rows.column(0),
        "sequence": pa.array(sequences, pa.string()),
        **{rows.schema.field(place).name: rows.column(place) for place in range(3, rows.num_columns)},
        "embedding": pa.FixedSizeListArray.from_arrays(numbers, encoded.values.shape[1], mask=mask),
        **scale,
        "error_code": pa.array(codes, pa.string()),
        "error": pa.array(reasons, pa.string()),
        "unknown_tokens": pa.array(unknown),
        "truncated_tokens": pa.array(truncated),
    }


def _errors(problems: Sequence[str | None], encoded: Encoded) -> tuple[list[str | None], list[str | None]]:
    """Code and reason of each record that has no vector."""
    codes: list[str | None] = [None] * len(problems)
    reasons: list[str | None] = [None] * len(problems)
    for error in encoded.errors:
        codes[error.index], reasons[error.index] = error.code.name, error.reason
    for index, problem in enumerate(problems):
        if problem is not None:
            codes[index], reasons[index] = MALFORMED, problem
    return codes, reasons
