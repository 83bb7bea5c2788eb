"""Measured costs kept on disk, so that a restart need not measure them again.

They lie in a cache folder of the user and not beside the bundle: a bundle refuses files that its manifest does not
list, and is often mounted read-only. A cache is a convenience: where it cannot be read or written, engines are measured
each time.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from birnn_bundle.atomic_file import replace_text
from birnn_bundle.bundle import Bundle
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.hardware import gpu_names, processor_name
from birnn_service.queueing.cost import CostModel, measure, profile, profile_shapes

logger = logging.getLogger(__name__)

# How many times slower or faster than its profile a run may be before the profile is thrown away. Neighbors and clocks
# move times by less; a container moved to other cores, or a processor that only has the same name, by more.
LARGEST_ERROR = 1.5

_Coefficient = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """What a profile is of: anything else that an engine's speed depends on must change one of these.

    Attributes:
        bundle: SHA-256 of the manifest, which lists those of all other files.
        output: Which of its graphs.
        engine: Name and version.
        hardware: Processor or GPU.
        precision: Of the arithmetic.
        max_rows: Rows of the largest batch that was measured.
        slots: Slots that each run used.
        packed: Whether rows are packed.
    """

    bundle: str
    output: str
    engine: str
    hardware: str
    precision: str
    max_rows: int
    slots: int
    packed: bool


class _Entry(BaseModel):
    """A file of the cache."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1] = 1
    key: dict[str, str | int | bool]
    fixed: _Coefficient
    per_step: _Coefficient
    per_cell: _Coefficient


class ProfileCache:
    """A folder of profiles, one small JSON file each."""

    def __init__(self, folder: Path | None) -> None:
        """Keep profiles in `folder`; None keeps none."""
        self._folder = folder

    def profile(self, bundle: Bundle, engine: Engine, output: Output, slots: int = 1) -> CostModel:
        """What batches cost on `engine`: as measured before, where that still holds, and else measured now."""
        key = profile_key(bundle, engine, output, slots)
        found = None if key is None else self._read(key)
        longest = bundle.manifest.max_length
        if found is not None and _holds(found, engine, output, longest, slots):
            return found
        measured = profile(engine, output, longest, slots)
        # What is slower than an earlier start was probably measured on a busy machine: good for now, not to be kept.
        rows, steps = profile_shapes(engine, longest)[-1]
        if key is not None and (found is None or measured.seconds(rows, steps) < found.seconds(rows, steps)):
            self._write(key, measured)
        return measured

    def _path(self, key: ProfileKey) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()
        return self._folder / f"profile-{name[:32]}.json"

    def _read(self, key: ProfileKey) -> CostModel | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            entry = _Entry.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            logger.info("ignoring the measured costs in %s: %s", path, error)
            return None
        if entry.key != asdict(key) or entry.fixed + entry.per_step + entry.per_cell == 0:
            logger.info("ignoring the measured costs in %s: they are of something else", path)
            return None
        return CostModel(entry.fixed, entry.per_step, entry.per_cell, key.packed)

    def _write(self, key: ProfileKey, cost: CostModel) -> None:
        path = self._path(key)
        if path is None:
            return
        entry = _Entry(key=asdict(key), fixed=cost.fixed, per_step=cost.per_step, per_cell=cost.per_cell)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A reader, or a server that starts at the same time, sees a whole file or none.
            replace_text(path, entry.model_dump_json(indent=2) + "\n")
        except OSError as error:
            logger.info("measured costs are not kept, so the next start measures again: %s", error)


def default_folder() -> Path | None:
    """The folder for caches of this program, as the XDG Base Directory Specification has it; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path is to be ignored.
    if os.path.isabs(base):
        return Path(base) / "birnn-serving"
    try:
        return Path.home() / ".cache" / "birnn-serving"
    except RuntimeError:
        return None


def profile_key(bundle: Bundle, engine: Engine, output: Output, slots: int) -> ProfileKey | None:
    """What a profile of `engine` is of; None where the hardware does not tell its name, so that nothing can be kept."""
    info = engine.info
    hardware = processor_name() if info.device == "cpu" else gpu_names()
    if hardware is None:
        return None
    return ProfileKey(
        bundle.digest, output.value, info.engine, hardware, info.precision, info.max_rows, slots, info.packed
    )


def _holds(cost: CostModel, engine: Engine, output: Output, longest: int, slots: int) -> bool:
    """Whether the smallest and the largest shape of a profile still take about as long as it says."""
    shapes = profile_shapes(engine, longest)
    for rows, steps in (shapes[0], shapes[-1]):
        found, predicted = measure(engine, output, rows, steps, slots), cost.seconds(rows, steps)
        if not 1 / LARGEST_ERROR <= found / predicted <= LARGEST_ERROR:
            logger.info(
                "measuring again: a batch of %d x %d tokens takes %.3g ms, %.3g ms according to an earlier start",
                *(rows, steps, 1000 * found, 1000 * predicted),
            )
            return False
    return True
