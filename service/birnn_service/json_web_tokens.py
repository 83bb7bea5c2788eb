"""JSON Web Tokens of an issuer, verified against its public keys in a local file (JWKS).

The issuer is trusted to name callers and to say what they may do. Nothing is fetched: headers of a token that name
other keys (`jku`, `x5u`, `jwk`, `x5c`) have no effect.
"""

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from jwt.algorithms import get_default_algorithms

from birnn_service.token_file import NAME, NAME_RULE, Grant, Right, digest_of

logger = logging.getLogger(__name__)

MOST_BYTES = 8192
"""Of a token."""
MOST_KEYS = 64
LEAST_RSA_BITS = 2048
# Seconds by which clocks may differ.
LEEWAY = 30.0
# No time is as late as this, in seconds since the epoch.
LATEST = 1e12
# Verified tokens that are remembered, so that a call does not cost a signature check.
MOST_REMEMBERED = 4096
SCOPE_PREFIX = "birnn:"
# By kty, or kty and crv: the algorithms that a key may have been used with, where it does not name one of them.
ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC P-256": ("ES256",),
    "EC P-384": ("ES384",),
    "EC P-521": ("ES512",),
    "OKP Ed25519": ("EdDSA",),
    "OKP Ed448": ("EdDSA",),
}
# Members of a JWK that are secret: of RSA, EC and OKP keys, and of symmetric ones.
SECRET = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))


class JwksError(ValueError):
    """The file of keys cannot be used; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the algorithms that it is good for."""

    algorithms: tuple[str, ...]
    public: Any = field(compare=False)
    jwk: str
    """Its JSON, by which keys are compared."""


Keys = Mapping[str, Key]
"""By `kid`; empty for a key without one, which must be the only one."""


def read_jwks(content: bytes) -> Keys:
    """The keys of a JWKS that sign tokens. Those for encryption, and of unknown kinds, are left out.

    Raises:
        JwksError: It is no JWKS, holds no such key, too many, a secret one, or several that cannot be distinguished.
    """
    try:
        entries = json.loads(content.decode("utf-8-sig"))["keys"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise JwksError('it is no JWKS, {"keys": [...]}') from None
    if len(entries) > MOST_KEYS:
        raise JwksError(f"it holds {len(entries)} keys, and {MOST_KEYS} are allowed")
    keys: dict[str, Key] = {}
    for number, entry in enumerate(entries, 1):
        if entry.get("kty") == "oct" or SECRET & entry.keys():
            raise JwksError(f"key {number} is secret; keep it from servers, and give them the public keys only")
        kid = entry.get("kid", "")
        if not isinstance(kid, str):
            raise JwksError(f"key {number}: its kid is no string")
        if not isinstance(entry.get("key_ops", []), list):
            raise JwksError(f"key {number}: its key_ops are no list")
        if (key := _read_key(number, entry)) is None:
            continue
        if kid in keys or (keys and not (kid and all(keys))):
            raise JwksError(f"key {number}: with several keys, each needs a kid of its own")
        keys[kid] = key
    if not keys:
        raise JwksError("it holds no key that verifies signatures by RS*, PS*, ES* or EdDSA")
    return keys


def _read_key(number: int, entry: dict[str, Any]) -> Key | None:
    """A key; None for one that verifies no tokens of ours."""
    kind = entry.get("kty")
    kind = f"{kind} {entry.get('crv')}" if kind in ("EC", "OKP") else kind
    allowed = ALGORITHMS.get(kind, ()) if isinstance(kind, str) else ()
    if "alg" in entry:
        allowed = tuple(algorithm for algorithm in allowed if algorithm == entry["alg"])
    if not allowed or entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ("verify",)):
        return None
    try:
        public = get_default_algorithms()[allowed[0]].from_jwk(entry)
    except Exception:
        raise JwksError(f"key {number} cannot be read") from None
    if kind == "RSA" and public.key_size < LEAST_RSA_BITS:
        raise JwksError(f"key {number} has {public.key_size} bits, and {LEAST_RSA_BITS} is the least")
    return Key(allowed, public, json.dumps(entry, sort_keys=True))


class RefusedError(Exception):
    """A token is not good; the message is for the log of the server, and quotes nothing of the token."""


@dataclass(frozen=True, slots=True)
class JwtRules:
    """What a token must say: whose it is, for whom it is, and the claim that names the caller."""

    issuer: str
    audience: str
    name_claim: str = "sub"


class JsonWebTokens:
    """Verifies tokens, and remembers those that it has verified until they expire or the keys change."""

    def __init__(self, rules: JwtRules) -> None:
        self._rules = rules
        # Algorithms by which nothing else is ever accepted, whatever a token's header says.
        self._jwt = jwt.PyJWS(algorithms=sorted({name for names in ALGORITHMS.values() for name in names}))
        # By digest, the grant and the end of a token, and the keys that verified it; the one asked for last comes last.
        # Metrics are asked for on a thread of their own, hence the lock.
        self._known: OrderedDict[str, tuple[Grant, float, Keys]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def verify(self, token: str, keys: Keys) -> Grant:
        """The caller that a token names, and its rights.

        Raises:
            RefusedError: The token is not good.
        """
        if len(token) > MOST_BYTES:
            raise RefusedError(f"it has {len(token)} characters, and {MOST_BYTES} are allowed")
        digest, now = digest_of(token), time.time()
        with self._lock:
            known = self._known.get(digest)
            if known is not None and now < known[1] and known[2] is keys:
                self._known.move_to_end(digest)
                return known[0]
        grant, end = self._verify(token, keys, now)
        with self._lock:
            self._known[digest] = grant, end, keys
            while len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return grant

    def _verify(self, token: str, keys: Keys, now: float) -> tuple[Grant, float]:
        try:
            key = _key_of(self._jwt.get_unverified_header(token), keys)
            claims = json.loads(self._jwt.decode(token, key.public, algorithms=key.algorithms))
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise RefusedError(f"{type(error).__name__} of its header, signature or JSON") from None
        if not isinstance(claims, dict):
            raise RefusedError("its claims are no object")
        end = self._check(claims, now)
        name = claims.get(self._rules.name_claim)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise RefusedError(f"its claim {self._rules.name_claim} is not {NAME_RULE}")
        return Grant.model_construct(name=name, rights=_rights(claims)), end

    def _check(self, claims: Mapping[str, Any], now: float) -> float:
        """Check what a token claims of itself; returns until when it is good."""
        times: dict[str, float] = {}
        for claim in ("exp", "nbf", "iat"):
            value = claims.get(claim, 0)
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < LATEST:
                raise RefusedError(f"its {claim} is no time")
            times[claim] = float(value)
        if "exp" not in claims:
            raise RefusedError("it has no exp")
        if (end := times["exp"] + LEEWAY) <= now:
            raise RefusedError("it has expired (exp)")
        if max(times["nbf"], times["iat"]) > now + LEEWAY:
            raise RefusedError("it is not valid yet (nbf, iat)")
        if claims.get("iss") != self._rules.issuer:
            raise RefusedError("it is of another issuer (iss)")
        audience = claims.get("aud")
        if self._rules.audience not in (audience if isinstance(audience, list) else [audience]):
            raise RefusedError("it is for another audience (aud)")
        return end


def _key_of(header: Mapping[str, Any], keys: Keys) -> Key:
    if header.get("crit") is not None:
        raise RefusedError("its header has `crit`, of which no extension is supported")
    kid = header.get("kid")
    found = next(iter(keys.values())) if kid is None and len(keys) == 1 else keys.get(kid or "")
    if found is None:
        raise RefusedError("its kid is none of the keys")
    return found


def _rights(claims: Mapping[str, Any]) -> tuple[Right, ...]:
    """The rights that the scopes of a token give: `birnn:encode` and so on, in `scope` or `scp`."""
    scopes: set[str] = set()
    for claim in ("scope", "scp"):
        value = claims.get(claim, ())
        scopes |= set(_words(value.split(" ") if isinstance(value, str) else value))
    return tuple(right for right in Right if SCOPE_PREFIX + right in scopes)


def _words(value: object) -> Iterable[str]:
    return (word for word in value if isinstance(word, str)) if isinstance(value, list | tuple) else ()
