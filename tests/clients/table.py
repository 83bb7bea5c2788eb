"""What became of each client's call: the table of all clients.

A test is a row by its mark, `@pytest.mark.clients("grpc-js", "Encode")`. What it adds by pytest's own fixture,
`record_property("result", "2 x 1,024 floats")`, stands in the last column. A failed test says why there, and one that
was skipped what is missing.
"""

from dataclasses import astuple, dataclass

import pytest

# The rows of this run, in order; printed at its end.
ROWS: list["Row"] = []


@dataclass(frozen=True)
class Row:
    """One client's call.

    Attributes:
        client: Who calls: a library or program.
        call: What it calls.
        result: What became of it.
    """

    client: str
    call: str
    result: str


def add(mark: pytest.Mark, report: pytest.TestReport) -> None:
    """Add the row of a test that has ended, in whatever way."""
    client, call = mark.args
    if report.passed:
        seen = ["ok", *(str(value) for name, value in report.user_properties if name == "result")]
        result = ", ".join(seen)
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        result = f"not run: {reason.removeprefix('Skipped: ')}"
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        result = f"FAILED: {(crash.message if crash else report.longreprtext).splitlines()[0]}"
    ROWS.append(Row(client, call, result))


def table() -> str:
    """All rows of this run, as a Markdown table."""
    rows = [("client", "call", "result"), ("---", "---", "---"), *map(astuple, ROWS)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
