"""The file that says who may do what: a line of JSON for each caller.

    {"name":"lab-a","sha256":"2c26b46b68ffc68ff99b453c1d304134...","rights":["encode"],"weight":4.0}

A line says how its caller proves who it is: by a token, of which the file has only the digest, or by a certificate. A
line with neither sets the weight and the limits of a caller whose name comes from a JWT or from a gateway.

Plain SHA-256 is enough to hide tokens, because they are 256 random bits: there is nothing to guess, which is what slow
hashes of passwords guard against. And it is fast enough for every call.
"""

import codecs
import enum
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

# Commas join what comes twice.
NAME_RULE = "1 to 64 visible ASCII characters without commas"
NAME = re.compile(r"[!-+\--~]{1,64}")
# Names in certificates are longer: a SPIFFE ID is a URI.
CERTIFICATE_RULE = "1 to 255 visible ASCII characters without commas"
CERTIFICATE = re.compile(r"[!-+\--~]{1,255}")
# By which scanners for leaked secrets find tokens.
PREFIX = "birnn_"


class TokenFileError(Exception):
    """The file cannot be used; the message says what is wrong, and quotes nothing."""


class Right(enum.StrEnum):
    """What a caller may do."""

    ENCODE = "encode"
    ADMIN = "admin"
    METRICS = "metrics"
    GATEWAY = "gateway"
    """Say in the header of `caller_header` for whom it calls."""


Rights = Right | tuple[Right, ...]
"""What a call needs: a right, or one of several."""


def _fits(rule: re.Pattern[str], words: str) -> AfterValidator:
    def check(text: str) -> str:
        if not rule.fullmatch(text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


Name = Annotated[str, _fits(NAME, f"a name is {NAME_RULE}")]
Digest = Annotated[str, _fits(re.compile("[0-9a-f]{64}"), "a digest is 64 hexadecimal digits in lower case")]
CertificateName = Annotated[str, _fits(CERTIFICATE, f"the name in a certificate is {CERTIFICATE_RULE}")]


class Grant(BaseModel):
    """A line of the file: a caller, how it proves who it is, and what it may do.

    Attributes:
        name: The caller.
        sha256: Digest of its token, in hexadecimal digits; None where it has none.
        certificate: The name in its client certificate; None where it proves itself otherwise.
        rights: What it may do. A line with neither token nor certificate gives none: those come with the JWT, or
            belong to the gateway.
        weight: Its share of the backlog and of engine time, relative to the 1 of callers without a line.
        sequences_per_second: How many sequences it may send a second, on average; None for no limit.
        burst: How many it may send at once after a pause; None for those of a second.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Name
    sha256: Digest | None = None
    certificate: CertificateName | None = None
    rights: tuple[Right, ...]
    weight: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] = 1.0
    sequences_per_second: Annotated[float, Field(gt=0, le=1e9)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.sha256 and self.certificate:
            raise ValueError("sha256 and certificate exclude each other")
        if self.rights and not (self.sha256 or self.certificate):
            raise ValueError("a line with rights needs sha256 or certificate")
        if self.burst and not self.sequences_per_second:
            raise ValueError("burst needs sequences_per_second")
        return self

    @property
    def limit(self) -> tuple[float, int] | None:
        """Sequences a second, and how many at once; None for no limit."""
        if self.sequences_per_second is None:
            return None
        return self.sequences_per_second, self.burst or math.ceil(self.sequences_per_second)


@dataclass(frozen=True)
class Grants:
    """The lines of a file."""

    lines: tuple[Grant, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Grant]:
        """All lines."""
        return {grant.name: grant for grant in self.lines}

    @cached_property
    def by_digest(self) -> dict[str, Grant]:
        """Those with a token."""
        return {grant.sha256: grant for grant in self.lines if grant.sha256}

    @cached_property
    def by_certificate(self) -> dict[str, Grant]:
        """Those with a certificate."""
        return {grant.certificate: grant for grant in self.lines if grant.certificate}


def new_secret() -> str:
    """A new token."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """By which a token is known."""
    return sha256(secret.encode()).hexdigest()


def read_tokens(content: bytes) -> Grants:
    """The lines of a file.

    Raises:
        TokenFileError: A line cannot be read, or two have the same name, token or certificate.
    """
    lines: list[Grant] = []
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if not line.strip():
            continue
        try:
            grant = Grant.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            where = ".".join(map(str, problem["loc"][:1])) or "JSON"
            raise TokenFileError(f"line {number}: {where}: {problem['msg'].removeprefix('Value error, ')}") from None
        keys = {("name", grant.name), ("digest", grant.sha256 or ""), ("certificate", grant.certificate or "")}
        keys = {(kind, value) for kind, value in keys if value}
        if keys & seen:
            raise TokenFileError(f"line {number}: this name, digest or certificate is there already")
        seen |= keys
        lines.append(grant)
    return Grants(tuple(lines))


def write_tokens(lines: Iterable[Grant]) -> bytes:
    """The file of these lines."""
    return "".join(grant.model_dump_json(exclude_defaults=True) + "\n" for grant in lines).encode()
