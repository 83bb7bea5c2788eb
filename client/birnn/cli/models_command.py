"""`birnn models`: controls the versions on a running server, and adds `birnn_service`'s commands for bundles."""

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
import grpc

from birnn.channel import channel_options
from birnn.cli.server_options import Server, server_options
from birnn.errors import call_error
from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_bundle.quoting import one_line

TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds to wait for the server.",
)


@contextmanager
def _asking(server: Server, timeout: float) -> Iterator[Callable[[str, Any], Any]]:
    """Yield a function that calls a method of a server by name. gRPC errors become errors of the command."""
    options, credentials = channel_options(server.address), server.credentials
    opened = (
        grpc.secure_channel(server.address, credentials, options=options)
        if credentials
        else grpc.insecure_channel(server.address, options=options)
    )
    with opened as channel:
        stub = GRPCInferenceServiceStub(channel)
        try:
            yield lambda method, request: getattr(stub, method)(request, timeout=timeout, metadata=server.metadata)
        except grpc.RpcError as error:
            raise click.ClickException(str(call_error(error, server.address, timeout))) from error


class ModelsGroup(click.Group):
    """A group of the commands of this module and those of `birnn_service`, which are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands whose packages are installed."""
        with suppress(click.ClickException):
            return sorted({*self.commands, *self._others()})
        return sorted(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        return self.commands.get(cmd_name) or self._others().get(cmd_name)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print which package the other commands need if it is missing."""
        try:
            self._others()
        except click.ClickException as error:
            # The text is not wrapped, because it ends with a command to copy.
            formatter.write(f"\n{error.message}\n")

    def _others(self) -> dict[str, click.Command]:
        try:
            group = importlib.import_module("birnn_service.commands").models
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing == "birnn" or missing.startswith("birnn_"):
                raise
            raise click.ClickException(
                f"the commands for bundles need the Python package {missing!r}, which is not installed: "
                "pip install 'birnn-serving[service,cpu]'"
            ) from error
        assert isinstance(group, click.Group)
        return dict(group.commands)


@click.group(cls=ModelsGroup)
def models() -> None:
    """Work with bundles on disk, and load and unload versions on a running server."""


@models.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON array, an object for each version.")
@TIMEOUT
@server_options
def status(name: str | None, as_json: bool, timeout: float, server: Server) -> None:
    """Show the versions of all encoders on a server, or of NAME.

    The state of a version is READY, LOADING, UNLOADING or UNAVAILABLE. The reason is shown if there is one.
    """
    with _asking(server, timeout) as ask:
        index = ask("RepositoryIndex", pb.RepositoryIndexRequest())
    found = [
        {"name": model.name, "version": model.version, "state": model.state, "reason": model.reason}
        for model in index.models
        if name in (None, model.name)
    ]
    if name is not None and not found:
        raise click.ClickException(f"the server knows no encoder {name!r}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for model in found:
        columns = (f"{model['name']}/{model['version']}", model["state"], model["reason"])
        click.echo("\t".join(one_line(column) for column in columns if column))


@models.command()
@click.argument("model")
@TIMEOUT
@server_options
def load(model: str, timeout: float, server: Server) -> None:
    """Make a server look for MODEL now, load its new versions, and try broken or unloaded versions again.

    MODEL is NAME, or NAME@VERSION for one version or alias. The server then serves that version even if its --versions
    excludes it. The command returns once everything is served.
    """
    with _asking(server, timeout) as ask:
        ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model))
    click.echo(f"{model} is loaded")


@models.command()
@click.argument("model")
@TIMEOUT
@server_options
def unload(model: str, timeout: float, server: Server) -> None:
    """Make a server stop serving MODEL until it is loaded again or its files change.

    MODEL is NAME, or NAME@VERSION for one version or alias. Calls in progress finish. The command returns once no new
    call can use it.
    """
    with _asking(server, timeout) as ask:
        ask("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=model))
    click.echo(f"{model} is unloaded")
