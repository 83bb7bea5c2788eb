"""Where the CPU time of our server goes, by part, put together from what was measured in different ways."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bench.callers import HTTP
from bench.markdown import table
from bench.peers.comparison import CALLS, EMPTY
from bench.peers.ours import is_ours

if TYPE_CHECKING:
    from bench.peers.report import Row

EXPLANATION = (
    "CPU microseconds of a call, and in brackets of a sequence. `all` is what the server's processes took. The front "
    "end is an empty call by h2load (ModelReady). Tokenizing, engine and writing the reply were measured by themselves "
    "in another process, the engine in batches as large as the server's were on average. What is left is the queue, "
    "the transport's share in larger messages, changes of threads, and over HTTP the front end and the reply, too."
)
PARTS = {"tokenize_us": "tokenizing", "engine_us": "engine", "reply_us": "reply"}


def costs_table(found: Iterable["Row"]) -> str:
    """The table of all rows of ours in which everything was measured; empty where there are none."""
    rows = [row for row in found if is_ours(row.server)]
    fronts = {row.server: row.facts["server_us"] for row in rows if row.generator == EMPTY}
    lines = []
    for row in rows:
        if row.server not in fronts or not PARTS.keys() <= row.facts.keys():
            continue
        # A call over HTTP has another front end, and another reply.
        grpc = CALLS.get(row.generator, "infer") not in HTTP
        known = {"front end": fronts[row.server] if grpc else None}
        known |= {name: row.facts[key] if grpc or key != "reply_us" else None for key, name in PARTS.items()}
        taken = row.facts["server_us"]
        rest = taken - sum(part or 0.0 for part in known.values())
        figures = [
            "" if part is None else f"{part:,.0f} ({part / row.load.batch:,.1f})"
            for part in (taken, *known.values(), rest)
        ]
        lines.append([row.server, str(row.load), row.generator, f"{row.facts['batch_rows']:.1f}", *figures])
    if not lines:
        return ""
    header = [
        "server",
        "load",
        "callers",
        "sequences a batch",
        "all",
        "front end",
        *PARTS.values(),
        "queue and rest",
    ]
    return f"{EXPLANATION}\n\n{table(header, lines)}"
