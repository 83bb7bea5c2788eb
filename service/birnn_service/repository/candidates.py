"""Versions that are asked for a share of the traffic, and answer none of it: the setting `shadow`."""

import re
from collections.abc import Mapping

from birnn_bundle.numerals import read_version
from birnn_bundle.quoting import shown
from birnn_service.state import Address

_CANDIDATE = re.compile(r"([a-z0-9][a-z0-9._-]*)/([0-9]+)=([0-9]+|[0-9]*\.[0-9]+)")


def read_candidates(text: str) -> Mapping[Address, float]:
    """Name and version of each candidate, and its share of the sequences of its encoder.

    Raises:
        ValueError: The text says something else.
    """
    candidates: dict[Address, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        found = _CANDIDATE.fullmatch(part)
        if not found or read_version(found[2]) is None or not 0 < float(found[3]) <= 1:
            raise ValueError(
                f"--shadow holds {shown(part)}; give NAME/VERSION=SHARE, with a share above 0 and at most 1, such as "
                "smiles/3=0.1"
            )
        if (found[1], found[2]) in candidates:
            raise ValueError(f"--shadow names {found[1]}/{found[2]} twice")
        candidates[found[1], found[2]] = float(found[3])
    return candidates
