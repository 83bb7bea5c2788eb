import mmap
from pathlib import Path

import pytest

from birnn_service.memory import available_memory, resident_memory
from birnn_service.settings_reader import load_settings

MACHINE = available_memory(Path("/nowhere"))
MIB = 1 << 20


@pytest.mark.parametrize(
    ("limit", "expected"), [("max\n", MACHINE), (f"{300 * MIB}\n", 300 * MIB), (f"{2**62}\n", MACHINE), ("?", MACHINE)]
)
@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_s_limit_bounds_the_memory(tmp_path: Path, file: str, limit: str, expected: int) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(limit)
    assert available_memory(tmp_path) == expected


def test_resident_memory_grows_with_what_is_taken() -> None:
    before = resident_memory()
    # New pages: what was freed before may still be resident, and would be taken first.
    with mmap.mmap(-1, 64 * MIB) as taken:
        taken.write(b"x" * len(taken))
        assert resident_memory() - before > len(taken) / 2


def test_without_a_proc_folder_nothing_is_known(tmp_path: Path) -> None:
    assert resident_memory(tmp_path / "statm") == 0


def test_what_calls_may_take_follows_from_what_the_server_may() -> None:
    settings = load_settings({"memory_mib": 2048})
    assert settings.call_memory_bytes == 1024 * MIB
    assert settings.max_reply_bytes == 128 * MIB
    assert load_settings({"memory_mib": 2048, "frontends": 4}).call_memory_bytes == 256 * MIB
    assert load_settings({"memory_mib": 2048, "frontends": 4}).max_reply_bytes == 64 * MIB
    assert load_settings({"memory_mib": 2048, "max_reply_mib": 7}).max_reply_bytes == 7 * MIB
    assert load_settings({"memory_mib": 1 << 20}).max_reply_bytes == 1024 * MIB
