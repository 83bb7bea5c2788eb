"""The plan of a job: what is encoded, how, and in which parts. Every machine makes the same plan."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from birnn_bundle.atomic_file import replace_text
from birnn_bundle.strict_model import StrictModel

PLAN_FILE = "plan.json"
# Vectors of a part: a worker holds them in memory until they are written.
PART_BYTES = 64 << 20


class BulkError(Exception):
    """A job cannot be done; the message says why, and what to change."""


class InputFile(StrictModel):
    """One file of the input.

    Attributes:
        name: As it was given, or found in a folder; the column `input` holds it.
        bytes: Its size.
        digest: Identifies its content: SHA-256 of a text file, or of the footer of a Parquet file; of an
            object in a store its ETag.
        records: Records in it.
    """

    name: str
    bytes: int
    digest: str
    records: int


class Recipe(StrictModel):
    """What is done with every record: all options that change a bit of the output.

    Attributes:
        encoder: Name and version.
        encoder_digest: SHA-256 of its manifest, which holds those of its other files.
        precision: Of the arithmetic, as engines name it.
        element_type: Of the vectors that are written.
        normalize: Scale each vector to length 1.
        truncate: Cut long sequences instead of failing them.
        column, header, delimiter, kind: How the files are read; see `SequenceFile`.
        keep: Columns that are written beside the vectors.
    """

    encoder: str
    encoder_digest: str
    precision: str
    element_type: Literal["float32", "float16", "int8"]
    normalize: bool
    truncate: bool
    column: str | None
    header: bool | None
    delimiter: str | None
    kind: str | None
    keep: list[str]


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive records of one input.

    Attributes:
        number: Position among all parts, which is the order of the output.
        input: Position of the input.
        start, stop: From which of its records to which, from 0.
    """

    number: int
    input: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of its records."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Slice:
    """One of `count` even shares of all parts, for machines that know their number and not each other."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `i/n`, where i counts from 0.

        Raises:
            ValueError: It is something else.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None or int(found[1]) >= int(found[2]):
            raise ValueError(f"must be i/n with i from 0 to n - 1, such as 0/16, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def of(self, parts: list[Part]) -> list[Part]:
        """Its parts, consecutive ones: text files are read from their beginning."""
        return parts[len(parts) * self.index // self.count : len(parts) * (self.index + 1) // self.count]


class Plan(StrictModel):
    """All of a job.

    Attributes:
        part_rows: Most records of a part.
        limit: Most records of the job; None for all.
    """

    schema_version: Literal[1] = 1
    recipe: Recipe
    inputs: list[InputFile]
    part_rows: int
    limit: int | None

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, which each part of the output names."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def records(self) -> int:
        """Records of all parts."""
        found = sum(file.records for file in self.inputs)
        return found if self.limit is None else min(found, self.limit)

    def parts(self) -> list[Part]:
        """All parts, in order. None crosses the end of a file."""
        return list(self._parts())

    def _parts(self) -> Iterator[Part]:
        left, number = self.records, 0
        for position, file in enumerate(self.inputs):
            records = min(file.records, left)
            left -= records
            for start in range(0, records, self.part_rows):
                yield Part(number, position, start, min(start + self.part_rows, records))
                number += 1

    def to_json(self) -> str:
        """The content of plan.json."""
        return self.model_dump_json(indent=1) + "\n"

    def agreed(self, folder: Path) -> Self:
        """This plan, written to a folder; or the one that lies there, if it is of the same job.

        Only names of inputs may differ, as they do where the same files are given from elsewhere.

        Raises:
            BulkError: The folder is of another job, or cannot be used.
        """
        path = folder / PLAN_FILE
        if not path.exists():
            replace_text(path, self.to_json())
            return self
        try:
            found = type(self).model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise BulkError(f"{path}: is no plan that this version knows: {error}") from error
        if differences := list(_differences(found, self)):
            raise BulkError(
                f"{folder} holds another job: {'; '.join(differences)}. Give the same options and inputs to go on with "
                "it, or another folder with -o"
            )
        return found


def default_part_rows(dimension: int) -> int:
    """Records of a part whose vectors take about `PART_BYTES`: a power of two."""
    return 1 << max(0, (PART_BYTES // (4 * dimension)).bit_length() - 1)


def _differences(there: Plan, here: Plan) -> Iterator[str]:
    """What two plans do not agree in."""
    for name in Recipe.model_fields:
        before, now = getattr(there.recipe, name), getattr(here.recipe, name)
        if before != now:
            yield f"{name} was {before!r} and is {now!r}"
    for name in ("part_rows", "limit"):
        before, now = getattr(there, name), getattr(here, name)
        if before != now:
            yield f"{name} was {before!r} and is {now!r}"
    if len(there.inputs) != len(here.inputs):
        yield f"it has {len(there.inputs)} input files, and {len(here.inputs)} are given"
        return
    for old, new in zip(there.inputs, here.inputs, strict=True):
        if (old.bytes, old.digest, old.records) != (new.bytes, new.digest, new.records):
            yield f"the input {new.name} is not what it was ({old.name}, {old.records:,} records)"
            return
