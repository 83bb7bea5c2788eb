"""`birnn tokens`."""

from collections.abc import Callable
from pathlib import Path

import click

from birnn_bundle.atomic_file import replace_bytes
from birnn_service.settings import ENV_PREFIX
from birnn_service.token_file import (
    NAME,
    NAME_RULE,
    Right,
    Token,
    TokenFileError,
    digest_of,
    new_secret,
    read_tokens,
    write_tokens,
)


def _with_file(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--tokens",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=ENV_PREFIX + "TOKENS",
        required=True,
        help=f"The file, as for `birnn serve` [{ENV_PREFIX}TOKENS].",
    )(command)


def _read(path: Path) -> dict[str, Token]:
    try:
        return read_tokens(path.read_bytes())
    except (OSError, TokenFileError) as error:
        raise click.ClickException(f"cannot use {path}: {error}") from error


def _write(path: Path, tokens: dict[str, Token]) -> None:
    try:
        replace_bytes(path, write_tokens(tokens))
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error}") from error


def _check_name(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if not NAME.fullmatch(name):
        raise click.BadParameter(f"must be {NAME_RULE}")
    return name


@click.group()
def tokens() -> None:
    """Say who may call a server. A server that runs notices within a second or two."""


@tokens.command()
@click.argument("name", callback=_check_name)
@click.option(
    "--right",
    "rights",
    type=click.Choice([str(right) for right in Right]),
    multiple=True,
    default=[str(Right.ENCODE)],
    show_default=True,
    help="What it is good for; may be repeated.",
)
@_with_file
def add(name: str, rights: tuple[str, ...], path: Path) -> None:
    """Make a token and print it, this once; the file keeps only its digest."""
    known = _read(path) if path.exists() else {}
    if any(token.name == name for token in known.values()):
        raise click.ClickException(f"there is a token of {name}; remove it first, or take another name")
    secret = new_secret()
    token = Token(name=name, sha256=digest_of(secret), rights=tuple(map(Right, dict.fromkeys(rights))))
    _write(path, known | {token.sha256: token})
    click.echo(secret)


@tokens.command("list")
@_with_file
def list_tokens(path: Path) -> None:
    """List names and rights."""
    for token in _read(path).values():
        click.echo(f"{token.name}\t{', '.join(token.rights)}")


@tokens.command()
@click.argument("name")
@_with_file
def remove(name: str, path: Path) -> None:
    """Remove a token: calls with it are refused from then on."""
    known = _read(path)
    left = {digest: token for digest, token in known.items() if token.name != name}
    if left == known:
        raise click.ClickException(f"there is no token of {name}")
    _write(path, left)
