"""`birnn loadtest report` and `birnn loadtest compare`: pages about saved results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from birnn.cli.distinct_files import check_distinct
from birnn_bundle.atomic_file import replace_text
from birnn_bundle.quoting import printable
from birnn_loadtest.report.compare_page import Comparison
from birnn_loadtest.report.page import report
from birnn_loadtest.report.saved_run import SavedRun, SavedRunError, explained
from birnn_loadtest.result import EXIT_ERROR

# The number of colors that readers can tell apart.
MOST_RUNS = 6
FILE = click.Path(path_type=Path, dir_okay=False)


class ReportError(click.ClickException):
    """A file cannot be read or written, or is not a result."""

    exit_code = EXIT_ERROR


class LoadTestGroup(click.Group):
    """Runs a load test, unless the first argument names a subcommand. A subcommand takes none of its options."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context of the load test or of the subcommand."""
        if args and (command := self.get_command(click.Context(self), args[0])) is not None:
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the load test or the subcommand that the context belongs to."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Reject an argument after the options, because the options of a load test do not apply to a subcommand."""
        names = ", ".join(self.commands)
        raise click.UsageError(f"unexpected argument {args[0]!r}; a subcommand ({names}) comes before all options", ctx)


@click.command("report")
@click.argument("run", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="PAGE.html", help="The HTML page to write.")
def report_command(run: Path, output: Path) -> None:
    """Write the result RUN, from `birnn loadtest --out RUN.json`, as a self-contained HTML page."""
    check_distinct({"RUN": run}, {"--output": output})
    write_page(output, page_of(_read(run)))


@click.command("compare")
@click.argument("runs", type=FILE, nargs=-1, required=True, metavar="A.json B.json ...")
@click.option("-o", "--output", type=FILE, metavar="PAGE.html", help="Also write the comparison as an HTML page.")
def compare_command(runs: tuple[Path, ...], output: Path | None) -> None:
    """Compare results with the first one, and show which differences are more than noise."""
    if not 2 <= len(runs) <= MOST_RUNS:
        raise click.UsageError(f"compare takes 2 to {MOST_RUNS} results, and got {len(runs)}")
    check_distinct({f"run {number}": path for number, path in enumerate(runs, 1)}, {"--output": output})
    try:
        comparison = Comparison(_named([_read(path) for path in runs]))
        click.echo(printable("\n".join(comparison.lines())))
        if output is not None:
            write_page(output, comparison.html())
    except SavedRunError as error:
        raise ReportError(str(error)) from error


def page_of(run: SavedRun) -> str:
    """Return the page of a run. A damaged file is an error of the command."""
    try:
        with explained(run.name):
            return report(run)
    except SavedRunError as error:
        raise ReportError(str(error)) from error


def write_page(path: Path, content: str) -> None:
    """Write a page. A failure is an error of the command."""
    try:
        replace_text(path, content)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> SavedRun:
    try:
        return SavedRun.read(path)
    except SavedRunError as error:
        raise ReportError(str(error)) from error
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from error


def _named(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """Return the runs with unique names, even if files in different folders have the same name."""
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else SavedRun(f"{run.name} ({number})", run.data)
            for number, run in enumerate(runs, 1)]  # fmt: skip
