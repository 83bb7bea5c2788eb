"""The file that says who may do what: a line of JSON for each token, with its name, its digest and its rights.

    {"name":"lab-a","sha256":"2c26b46b68ffc68ff99b453c1d304134...","rights":["encode"]}

The tokens themselves are not in it. Plain SHA-256 is enough to hide them, because they are 256 random bits: there is
nothing to guess, which is what slow hashes of passwords guard against. And it is fast enough for every call.
"""

import enum
import re
import secrets
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

# Commas join what comes twice.
NAME_RULE = "1 to 64 visible ASCII characters without commas"
NAME = re.compile(r"[!-+\--~]{1,64}")
# By which scanners for leaked secrets find tokens.
PREFIX = "birnn_"


class TokenFileError(Exception):
    """The file cannot be used; the message says what is wrong, and quotes nothing."""


class Right(enum.StrEnum):
    """What a token lets its holder do."""

    ENCODE = "encode"
    ADMIN = "admin"
    METRICS = "metrics"
    GATEWAY = "gateway"
    """Say in the header of `caller_header` for whom it calls."""


class Token(BaseModel):
    """What the server knows of a token.

    Attributes:
        name: Of its holder.
        sha256: Digest of the token, in hexadecimal digits.
        rights: What it is good for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    sha256: str
    rights: tuple[Right, ...]

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"a name is {NAME_RULE}")
        return name

    @field_validator("sha256")
    @classmethod
    def _is_digest(cls, digest: str) -> str:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError("a digest is 64 hexadecimal digits in lower case")
        return digest


def new_secret() -> str:
    """A new token."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """By which a token is known."""
    return sha256(secret.encode()).hexdigest()


def read_tokens(content: bytes) -> dict[str, Token]:
    """The tokens of a file, by digest.

    Raises:
        TokenFileError: A line is no token, or two are of one name.
    """
    tokens: dict[str, Token] = {}
    names: set[str] = set()
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token = Token.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            where = ".".join(map(str, problem["loc"][:1])) or "JSON"
            raise TokenFileError(f"line {number}: {where}: {problem['msg'].removeprefix('Value error, ')}") from None
        if token.name in names or token.sha256 in tokens:
            raise TokenFileError(f"line {number}: this name or digest is there already")
        names.add(token.name)
        tokens[token.sha256] = token
    return tokens


def write_tokens(tokens: dict[str, Token]) -> bytes:
    """The file of `tokens`."""
    return "".join(token.model_dump_json() + "\n" for token in tokens.values()).encode()
