"""`birnn tokens`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout
from pydantic import ValidationError

from birnn_bundle.atomic_file import replace_bytes
from birnn_service.setting_types import ENV_PREFIX
from birnn_service.token_file import Grant, Right, TokenFileError, digest_of, new_secret, read_tokens, write_tokens

# How long a command waits for another one that changes the same file.
LOCK_SECONDS = 30.0


def _with_file(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--tokens",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=ENV_PREFIX + "TOKENS",
        required=True,
        help=f"File of tokens, as for `birnn serve` [{ENV_PREFIX}TOKENS].",
    )(command)


def _read(path: Path) -> tuple[Grant, ...]:
    try:
        return read_tokens(path.read_bytes()).lines
    except (OSError, TokenFileError) as error:
        raise click.ClickException(f"cannot use {path}: {error}") from error


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Keep other commands from changing the file meanwhile: of two at once, one would undo what the other did.

    The lock is a file of its own, because the file itself is replaced. It stays, empty, beside it.
    """
    # Links are followed, as when the file is written.
    real = path.resolve()
    try:
        with FileLock(real.with_name(f".{real.name}.lock"), timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise click.ClickException(f"another command has been changing {path} for {LOCK_SECONDS:g} s") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error}") from error


@click.group()
def tokens() -> None:
    """Manage who may call a server, and how much. Running servers notice changes within two seconds."""


@tokens.command()
@click.argument("name")
@click.option(
    "--right",
    "rights",
    type=click.Choice([str(right) for right in Right]),
    multiple=True,
    help=f"A right of the caller; repeatable; by default {Right.ENCODE}.",
)
@click.option(
    "--certificate",
    metavar="NAME",
    help="Name in the certificate of the caller, such as spiffe://example.org/lab-a, instead of a token.",
)
@click.option(
    "--no-token",
    is_flag=True,
    help="Create no token: NAME comes from a JWT or a gateway, and this sets its weight and limits.",
)
@click.option("--weight", type=float, help="Share of backlog and engine time, 0.01 to 100; 1 by default.")
@click.option("--sequences-per-second", type=float, help="Maximum number of sequences per second, on average.")
@click.option(
    "--burst", type=int, help="Maximum number of sequences at once after a pause; by default those of a second."
)
@_with_file
def add(name: str, rights: tuple[str, ...], certificate: str | None, no_token: bool, path: Path, **limits: Any) -> None:
    """Add a caller. Creates a token and prints it once; the file keeps only its digest."""
    if no_token and (rights or certificate):
        raise click.UsageError("--no-token goes with neither --right nor --certificate; rights come with the JWT")
    secret = None if certificate or no_token else new_secret()
    proof = {"sha256": digest_of(secret)} if secret else {"certificate": certificate} if certificate else {}
    given = {key: value for key, value in limits.items() if value is not None}
    rights = () if no_token else tuple(dict.fromkeys(rights)) or (Right.ENCODE,)
    try:
        grant = Grant.model_validate({"name": name, "rights": rights, **proof, **given})
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        where = " ".join(map(str, problem["loc"][:1])).replace("_", "-")
        raise click.UsageError(f"{where}: {problem['msg'].removeprefix('Value error, ')}".lstrip(": ")) from None
    with _changing(path):
        known = _read(path) if path.exists() else ()
        if any(line.name == name for line in known):
            raise click.ClickException(f"there is a token of {name}; remove it first, or take another name")
        if certificate and any(line.certificate == certificate for line in known):
            raise click.ClickException(f"there is a line for the certificate {certificate}; remove it first")
        replace_bytes(path, write_tokens((*known, grant)))
    if secret:
        click.echo(secret)


@tokens.command("list")
@_with_file
def list_tokens(path: Path) -> None:
    """List names, rights, certificates, weights and limits."""
    for grant in _read(path):
        more = [f"certificate {grant.certificate}"] if grant.certificate else []
        more += ["no token"] if not (grant.certificate or grant.sha256) else []
        more += [f"weight {grant.weight:g}"] if grant.weight != 1 else []
        more += [f"{grant.limit[0]:g} sequences/s, burst {grant.limit[1]}"] if grant.limit else []
        click.echo("\t".join([grant.name, ", ".join(grant.rights), *([", ".join(more)] if more else [])]))


@tokens.command()
@click.argument("name")
@_with_file
def remove(name: str, path: Path) -> None:
    """Remove a caller. Its calls are refused from then on."""
    with _changing(path):
        known = _read(path)
        left = tuple(line for line in known if line.name != name)
        if left == known:
            raise click.ClickException(f"there is no token of {name}")
        replace_bytes(path, write_tokens(left))
