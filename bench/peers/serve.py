"""`python -m bench.peers.serve`: Triton or our server, until Ctrl-C, to be measured by `birnn loadtest`."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import click

from bench.peers.ours import Ours
from bench.peers.server import Server, running
from bench.peers.triton import Triton
from birnn_bundle.bundle import Bundle

SERVERS: dict[str, Server] = {"triton": Triton(observed=True), "ours": Ours()}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("server", type=click.Choice(list(SERVERS)))
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--max-batch-size", type=click.IntRange(1), default=64, show_default=True, help="Of Triton.")
@click.option("--max-queue-delay-us", type=click.IntRange(0), default=0, show_default=True, help="Of Triton.")
@click.option("--instances", type=click.IntRange(1), help="Of Triton's model; one for each core by default.")
def main(server: str, bundle: Path, max_batch_size: int, max_queue_delay_us: int, instances: int | None) -> None:
    """Serve the folder BUNDLE, such as models/smiles-small/1, and print where."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    cores = len(os.sched_getaffinity(0))
    served = Bundle.load(bundle.resolve())
    settings = {
        "max_batch_size": max_batch_size,
        "max_queue_delay_us": max_queue_delay_us,
        "instances": instances or cores,
    }
    with tempfile.TemporaryDirectory(prefix="birnn-bench-") as folder:
        command = SERVERS[server].prepare(served, settings, cores, Path(folder))
        with running(command, served.manifest.name, [], Path(folder) / "log"):
            click.echo(f"{served.manifest.name}: gRPC {command.address}, HTTP {command.http}, {command.metrics}")
            signal.pause()


if __name__ == "__main__":
    main(prog_name="python -m bench.peers.serve")
