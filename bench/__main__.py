"""`python -m bench`: the parts of the service by themselves. `python -m bench.peers` puts the whole beside others."""

from pathlib import Path

import click

from bench.engine_command import engine
from bench.planner import planner
from bench.results import OUT, QUICK
from bench.rpc_command import rpc
from bench.sequences import OPTION
from bench.tenants import tenants
from bench.tokenizer_command import tokenizer


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the parts of the service by themselves."""


for command in (engine, planner, tenants, tokenizer, rpc):
    main.add_command(command)


@main.command(name="all")
@OPTION
@OUT
@QUICK
@click.pass_context
def everything(context: click.Context, file: Path, out: Path, quick: bool) -> None:
    """Run all of the others with their defaults."""
    for name, command in main.commands.items():
        if name != "all":
            context.invoke(command, file=file, out=out, quick=quick)


if __name__ == "__main__":
    main(prog_name="python -m bench")
