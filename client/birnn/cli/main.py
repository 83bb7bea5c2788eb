"""The `birnn` command: a group that imports a subcommand only when it is called.

Encoding needs little more than grpcio, while training needs torch. So each command imports its own package. If a
package is missing, the error names the extra to install.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

import click

from birnn_bundle.quoting import printable


class Target(NamedTuple):
    """A subcommand: its module and attribute, the extra with its dependencies, and its line in `birnn --help`."""

    module: str
    attribute: str
    extra: str
    summary: str


TARGETS = {
    "encode": Target("birnn.cli.encode_command", "encode", "", "Encode sequences or a file of them."),
    "bulk": Target("birnn_bulk.command", "bulk", "service,cpu,bulk", "Encode files of any size, without a server."),
    "map": Target("birnn.cli.map_command", "map_vectors", "map", "Draw vectors as a map in two dimensions."),
    "serve": Target("birnn_service.commands", "serve", "service,cpu", "Serve the encoders of a models folder."),
    "models": Target("birnn.cli.models_command", "models", "", "Manage bundles, and the versions on a server."),
    "doctor": Target(
        "birnn_service.doctor.command", "doctor", "", "Check what this machine can serve with, and how fast."
    ),
    "tokens": Target("birnn_service.token_commands", "tokens", "service", "Manage the tokens of callers."),
    "train": Target("birnn_export.train_command", "train", "export", "Train an encoder on a file of sequences."),
    "export": Target(
        "birnn_export.export_command", "export", "export,cpu", "Export a checkpoint as a verified bundle."
    ),
    "loadtest": Target("birnn_loadtest.command", "loadtest", "loadtest", "Measure a server under load."),
}


class LazyGroup(click.Group):
    """A click group that imports the module of a subcommand on demand."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the command line, with printable errors."""
        with _printable_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand, with printable errors."""
        with _printable_errors():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand. For an unknown name, the error suggests a similar one."""
        if args[0] not in TARGETS and (similar := get_close_matches(args[0], TARGETS)):
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {similar[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands without importing any."""
        return list(TARGETS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand. If a package is missing, the error names the extra to install."""
        target = TARGETS.get(cmd_name)
        if target is None:
            return None
        try:
            module = importlib.import_module(target.module)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing == "birnn" or missing.startswith("birnn_"):
                raise
            raise click.ClickException(
                f"`birnn {cmd_name}` needs the Python package {missing!r}, which is not installed: "
                f"pip install 'birnn-serving[{target.extra}]'"
            ) from error
        command = getattr(module, target.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands from `TARGETS`, so that `birnn --help` imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.summary) for name, target in TARGETS.items()])


@contextmanager
def _printable_errors() -> Iterator[None]:
    """Make text that errors quote from files and servers printable, so that it cannot control the terminal."""
    try:
        yield
    except click.ClickException as error:
        # Only type checkers treat it as final. A new exception would lose what this kind shows around the message.
        error.message = printable(error.message)  # type: ignore[misc]
        raise


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="birnn-serving", prog_name="birnn")
def main() -> None:
    """Serve and use bidirectional recurrent sequence encoders."""


if __name__ == "__main__":
    main()
