from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birnn.vector_files.npy_file import GrowingArray


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 50), max_size=10), width=st.integers(1, 5))
def test_rows_appended_in_pieces_are_one_array(tmp_path: Path, lengths: list[int], width: int) -> None:
    rows = np.arange(sum(lengths) * width, dtype=np.float32).reshape(-1, width)
    with (tmp_path / "a.npy").open("wb") as file:
        array = GrowingArray(file, width)
        for piece in np.split(rows, np.cumsum(lengths)[:-1]) if lengths else []:
            array.append(piece)
        array.complete()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)
