"""`birnn serve` and `birnn models`."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from birnn_bundle.bundle import Bundle, read_signature
from birnn_bundle.errors import BundleError
from birnn_bundle.numerals import MOST_VERSION
from birnn_bundle.quoting import one_line
from birnn_bundle.signature import Signature
from birnn_service.bundle_commands import index, keygen, sign
from birnn_service.catalog import Encoder, Encoders, label_of
from birnn_service.engine.engine import Device, EngineName, Precision
from birnn_service.engine.gate import Ceiling
from birnn_service.engine.loading import load_engine
from birnn_service.engine.recorded import check_recorded, runnable
from birnn_service.errors import StartupError
from birnn_service.measure_command import measure
from birnn_service.observe.logs import log_uncaught, start_logging
from birnn_service.observe.metrics import ENGINE_PROCESS
from birnn_service.server import Server
from birnn_service.setting_types import ENV_PREFIX
from birnn_service.settings import Settings
from birnn_service.settings_reader import load_settings
from birnn_service.sources.aliases import write_alias
from birnn_service.sources.opening import default_folder, open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import Source, SourceError
from birnn_service.state import Address
from birnn_service.trust import read_trust

logger = logging.getLogger(__name__)

DEVICE = click.option(
    "--device", type=click.Choice(get_args(Device)), default="auto", show_default=True, help="Device to run it on."
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(get_args(EngineName)),
    default="auto",
    show_default=True,
    help="Engine to run it with.",
)
PRECISION = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="Precision of the arithmetic.",
)


def _flag(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    """A flag for one field of the settings; its value is checked by the settings themselves."""
    if field.annotation is bool and not field.default:
        help_text = f"{field.description} [{ENV_PREFIX}{name.upper()}]"
        return click.option("--" + name.replace("_", "-"), name, is_flag=True, default=None, help=help_text)
    default = str(field.default).lower() if field.annotation is bool else field.default
    shown = "" if field.default is None else f"; default {default}"
    choices = [get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    return click.option(
        "--" + name.replace("_", "-"),
        name,
        type=click.Choice(choices[0]) if choices else str,
        metavar=None if choices else field.title or name.rpartition("_")[2].upper(),
        help=f"{field.description} [{ENV_PREFIX}{name.upper()}{shown}]",
    )


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    for name, field in reversed(Settings.model_fields.items()):
        command = _flag(name, field)(command)
    return command


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar=ENV_PREFIX + "CONFIG",
    help=f"TOML file of settings [{ENV_PREFIX}CONFIG].",
)
@click.option("--check", is_flag=True, help="Load and verify every encoder, print the results, and exit.")
@_with_settings
def serve(config: Path | None, check: bool, **flags: Any) -> None:
    """Serve the encoders of a models folder over gRPC.

    Each option is also a BIRNN_* variable and a key of the TOML file. Options override variables, and variables
    override the file.

    --check opens no port. It exits with status 0 only if every encoder can be served.
    """
    try:
        settings = load_settings({name: value for name, value in flags.items() if value is not None}, config)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    start_logging(settings, ENGINE_PROCESS)
    try:
        _check(settings) if check else _run(settings)
    except StartupError as error:
        if settings.log_format == "json":
            logger.critical("%s", error)
            sys.exit(1)
        raise click.ClickException(str(error)) from error


def _check(settings: Settings) -> None:
    """Print one line for each encoder; exits with status 1 where one is broken."""

    async def checked() -> Encoders[Encoder]:
        return await Server(settings).load()

    encoders = asyncio.run(checked())
    for encoder in encoders:
        info = encoder.info
        click.echo(f"{label_of(encoder)}\tgood: {info.engine} in {info.precision} on {info.device}")
    for (name, version), reason in encoders.broken.items():
        click.echo(f"{name}/{version}\tbroken: {reason}")
    if encoders.broken:
        sys.exit(1)


def _run(settings: Settings) -> None:
    log_uncaught()

    async def main() -> None:
        await Server(settings).run()

    if sys.platform == "win32":
        asyncio.run(main())
        return
    import uvloop

    uvloop.run(main())


def _limit(name: str) -> Callable[[Any], Any]:
    """An option with the name, type, default and help of a float of the settings."""
    field = Settings.model_fields[name]
    return click.option(
        "--" + name.replace("_", "-"), type=float, default=field.default, show_default=True, help=field.description
    )


@click.group()
def models() -> None:
    """List, verify, measure, sign and index encoder bundles."""


@models.command("list")
@click.argument("source", required=False)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=ENV_PREFIX + "CACHE_DIR",
    help=f"Folder that keeps bundles of a store, as for `birnn serve` [{ENV_PREFIX}CACHE_DIR].",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array, an object for each bundle.")
def list_models(source: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """List the bundles of a folder or a store, by default those that `birnn serve` takes; broken ones with the reason.

    Bundles of a store are fetched into the cache. Signatures are not checked here; see `birnn models verify`.
    """
    try:
        opened = open_source(source, StoreOptions(cache_dir))
        look = opened.look()
        bundles = [_describe(opened, address) for address in sorted(look.bundles)]
    except (StartupError, SourceError) as error:
        raise click.ClickException(str(error)) from error
    for place, problem in look.problems.items():
        click.echo(f"{place} is ignored: {one_line(problem)}", err=True)
    if look.stale:
        click.echo(f"from the cache: {one_line(look.stale)}", err=True)
    if as_json:
        click.echo(json.dumps(bundles, indent=2))
        return
    for bundle in bundles:
        label = f"{bundle['name']}/{bundle['version']}"
        if bundle["error"] is not None:
            click.echo(f"{one_line(label)}\tbroken: {one_line(bundle['error'])}")
            continue
        click.echo(
            f"{label}\t{bundle['architecture']}, {bundle['pooling']} pooling, {bundle['dimension']} floats, "
            f"{bundle['tokenizer'] or str(bundle['features']) + '-feature'} tokens, up to {bundle['max_length']}\t"
            f"{one_line(bundle['description'])}\t{_signed(bundle)}"
        )


def _signature(path: Path) -> dict[str, str | None]:
    """By which key a bundle claims to be signed, which is not checked here; or why its signature is none."""
    try:
        content = read_signature(path)
        key = None if content is None else Signature.from_bytes(content).key_id
    except BundleError as error:
        return {"signature_key": None, "signature_error": str(error)}
    return {"signature_key": key, "signature_error": None}


def _signed(bundle: dict[str, Any]) -> str:
    if bundle["signature_error"] is not None:
        return one_line(bundle["signature_error"])
    key = bundle["signature_key"]
    return "not signed" if key is None else f"claims to be signed by {key}"


def _describe(source: Source, address: Address) -> dict[str, Any]:
    """What there is to know about a bundle before it is loaded; `error` says what is wrong with it, if anything."""
    found: dict[str, Any] = dict(zip(("name", "version"), address, strict=True), path=None, error=None)
    try:
        path = source.fetch(address)
        found["path"] = str(path)
        manifest = Bundle.load(path).manifest
        found |= _signature(path)
    except (SourceError, BundleError) as error:
        return {**found, "error": str(error)}
    return {
        **found,
        "name": manifest.name,
        "version": str(manifest.version),
        "tokenizer": manifest.tokenizer.kind if manifest.tokenizer else None,
        "features": manifest.features,
        **manifest.model_dump(
            mode="json",
            include={"description", "architecture", "pooling", "dimension", "token_dimension", "layers", "max_length"},
        ),
    }


@models.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@DEVICE
@ENGINE
@PRECISION
@_limit("max_tolerance")
@_limit("min_cosine")
@click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file of public keys, one of which must have signed the bundle.",
)
def verify(
    bundle: Path,
    device: Device,
    engine: EngineName,
    precision: Precision,
    max_tolerance: float,
    min_cosine: float | None,
    trust: Path | None,
) -> None:
    """Check a bundle's signature (with --trust), its digests, and its encodings on this machine's engine against the
    recorded golden ones.

    Without --precision and --engine, each reduced precision that the bundle allows and this machine supports is
    measured, too, and compared with the record in the manifest.
    """
    try:
        loaded = Bundle.load(bundle, trust=read_trust(trust))
        ceiling = Ceiling(max_tolerance, min_cosine)
        lines = [_verified(loaded, device, engine, precision, ceiling)]
        if precision == "fp32" and engine == "auto":
            for reduced, here in runnable(loaded, device).items():
                lines.append(
                    _verified(loaded, device, engine, reduced, ceiling)
                    if here
                    else f"{reduced} is allowed, and was not checked: no engine on this machine computes in it"
                )
    except (BundleError, StartupError) as error:
        raise click.ClickException(str(error)) from error
    signed = f"Signed by {loaded.signed_by}. " if loaded.signed_by else ""
    click.echo(f"{loaded.label}: good. {signed}{len(loaded.manifest.files)} files match their digests; {lines[0]}")
    for line in lines[1:]:
        click.echo(line)


def _verified(bundle: Bundle, device: Device, engine: EngineName, precision: Precision, ceiling: Ceiling) -> str:
    """How far an engine is off, in words; raises StartupError where that is too far."""
    proven = load_engine(bundle, device, engine=engine, precision=precision, ceiling=ceiling)
    recorded = check_recorded(bundle, proven)
    info, report = proven.engine.info, proven.report
    proven.engine.close()
    return (
        f"{info.engine} on {info.device} ({proven.choice}), {info.precision}, agrees with float64 PyTorch to "
        f"{report.pooled:.1e} (pooled) and {report.tokens:.1e} (tokens), least cosine {report.cosine:.7f}"
        f"{recorded and f'; {recorded}'}"
    )


models.add_command(measure)
models.add_command(keygen)
models.add_command(sign)
models.add_command(index)


@models.command()
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=click.IntRange(0, MOST_VERSION))
@click.option(
    "--models",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar=ENV_PREFIX + "MODELS",
    help=f"The models folder, by default the one that `birnn serve` takes [{ENV_PREFIX}MODELS].",
)
def alias(name: str, alias: str, version: int, folder: Path | None) -> None:
    """Make NAME@ALIAS stand for VERSION; 0 removes the alias. Servers follow within --models-poll."""
    try:
        path = write_alias(folder or default_folder()[0], name, alias, version)
    except (StartupError, SourceError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{name}@{alias} is {f'version {version}' if version else 'no more'}, as {path} says")
