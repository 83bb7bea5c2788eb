"""A hundred versions that replace each other under load: no call is lost or wrong, and nothing piles up."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.outcomes import attack
from tests.chaos.processes import resident
from tests.e2e.server_process import ServerProcess, running, until
from tests.e2e.swapping import CONTENTS, NAME, SETTINGS, Replies, callers, install, states

SWAPS = 100
# Before anything is measured, so that caches and allocators have what they keep.
WARM_UP = 20
MOST_GROWTH_MIB = 64


def held(server: ServerProcess) -> tuple[int, int]:
    """Descriptors and threads of the process that owns the engines."""
    process = Path(f"/proc/{server.process.pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def _is_answered(replies: Replies, version: int, content: Path, before: int) -> bool:
    """Whether a version with a content has answered a call since there were `before` of them."""
    return replies.of(version, content) > before


@pytest.mark.parametrize("front_ends", [0, 2])
def test_a_hundred_swaps_lose_no_call_and_leave_nothing_behind(tmp_path: Path, front_ends: int) -> None:
    models = tmp_path / "models"
    install(models, CONTENTS[0], 1)
    arguments = (*SETTINGS, "--versions", "latest:1", "--frontends", str(front_ends), "--cache-mib", "8")
    with attack(f"{SWAPS} swaps under 4 callers, {front_ends} front-ends") as outcomes:
        with running(models, *arguments) as server, callers(server, pause=0.0) as replies:
            for swap in range(2, SWAPS + 2):
                # Every other time another version, every other time other files of the same one.
                version, content = 1 + swap // 2, CONTENTS[swap % len(CONTENTS)]
                before = replies.of(version, content)
                install(models, content, version)
                until(partial(_is_answered, replies, version, content, before))
                if version > 2:
                    shutil.rmtree(models / NAME / str(version - 2), ignore_errors=True)
                if swap == WARM_UP:
                    until(lambda: "UNLOADING" not in states(server).values())
                    memory, (descriptors, threads) = resident(server), held(server)
            until(lambda: "UNLOADING" not in states(server).values())
            until(lambda: server.metric("birnn_encoder_ready", encoder=NAME) == 1)
            assert server.metric("birnn_encoder_loads_total", outcome="refused") == 0
            until(lambda: sum(held(server)) <= descriptors + threads + 4)
            grown = resident(server) - memory
            outcomes.note = f"{grown:+.0f} MiB, {held(server)[0] - descriptors:+d} descriptors, "
            outcomes.note += f"{held(server)[1] - threads:+d} threads since swap {WARM_UP}"
            assert grown < MOST_GROWTH_MIB
        outcomes.answered = replies.total
        outcomes.wrong, outcomes.lost = len(replies.wrong), len(replies.lost)
        outcomes.sent = outcomes.answered + outcomes.wrong + outcomes.lost
        outcomes.assert_unharmed()
