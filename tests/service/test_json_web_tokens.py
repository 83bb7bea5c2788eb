"""JWTs that are good, and attacks by ones that are not."""

import base64
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from birnn_service import json_web_tokens
from birnn_service.access import Access
from birnn_service.errors import ForbiddenError, StartupError, UnauthenticatedError
from birnn_service.json_web_tokens import LEEWAY, JsonWebTokens, JwksError, JwtRules, RefusedError, read_jwks
from birnn_service.settings_reader import load_settings
from birnn_service.token_file import Grant, Right, digest_of, write_tokens

ISSUER, AUDIENCE = "https://issuer.example", "birnn"
RULES = JwtRules(ISSUER, AUDIENCE)
RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str | None = "one", *, secret: bool = False, **more: Any) -> dict[str, Any]:
    """A key as it stands in a JWKS."""
    kinds: dict[type, Any] = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    algorithm = next(algorithm for kind, algorithm in kinds.items() if isinstance(key, kind))
    entry: dict[str, Any] = algorithm.to_jwk(key if secret else key.public_key(), as_dict=True)
    entry.pop("key_ops", None)
    return entry | ({} if kid is None else {"kid": kid}) | more


def jwks(*entries: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": entries}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, with changes; None leaves one out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "lab", "exp": time.time() + 600, "scope": "openid birnn:encode"}
    return {claim: value for claim, value in (good | changes).items() if value is not None}


def signed(key: Any = RSA, algorithm: str = "RS256", header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    given = {"kid": "one"} | dict(header or {})
    return jwt.encode(claims(**changes), key, algorithm, {name: value for name, value in given.items() if value})


def part(content: Any) -> bytes:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def forged(header: Any, body: Any, key: bytes = b"") -> str:
    """A token with an HMAC of that key."""
    content = part(header) + b"." + part(body)
    return (content + b"." + part(hmac.digest(key, content, "sha256") if key else b"")).decode()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS512"), (RSA, "PS384"), (EC, "ES256"), (ED, "EdDSA")],
)
def test_a_token_of_the_issuer_names_its_caller_and_rights(key: Any, algorithm: str) -> None:
    tokens, keys = JsonWebTokens(RULES), read_jwks(jwks(jwk(key)))
    for _ in range(2):
        grant = tokens.verify(signed(key, algorithm), keys)
        assert (grant.name, grant.rights) == ("lab", (Right.ENCODE,))


@pytest.mark.parametrize(
    ("scopes", "rights"),
    [
        ({"scope": "birnn:encode birnn:metrics"}, (Right.ENCODE, Right.METRICS)),
        ({"scope": None, "scp": ["birnn:encode", "birnn:admin", 3]}, (Right.ENCODE, Right.ADMIN)),
        ({"scope": None, "scp": "birnn:gateway"}, (Right.GATEWAY,)),
        ({"scope": "birnn:everything encode birnn:encoder xbirnn:encode birnn:encode,"}, ()),
        ({"scope": {"birnn:encode": True}}, ()),
        ({"scope": "birnn:encode\u2003birnn:admin"}, ()),
        ({"scope": None}, ()),
    ],
)
def test_rights_are_scopes_to_the_letter(scopes: dict[str, Any], rights: tuple[Right, ...]) -> None:
    grant = JsonWebTokens(RULES).verify(signed(**scopes), read_jwks(jwks(jwk(RSA))))
    assert grant.rights == rights


PUBLIC_PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
HEADER = {"alg": "HS256", "typ": "JWT", "kid": "one"}
ATTACKS: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: forged({"alg": "none", "kid": "one"}, claims()),
    "no algorithm, in capitals": lambda: forged({"alg": "NONE", "kid": "one"}, claims()),
    "no algorithm in the header": lambda: forged({"kid": "one"}, claims()),
    "an HMAC of the public key": lambda: forged(HEADER, claims(), PUBLIC_PEM),
    "an HMAC of its JWK": lambda: forged(HEADER, claims(), json.dumps(jwk(RSA)).encode()),
    "the signature cut off": lambda: signed().rpartition(".")[0] + ".",
    "another key": lambda: signed(OTHER_RSA),
    "the kid of another key": lambda: signed(RSA, header={"kid": "two"}),
    "the key of another kid": lambda: signed(OTHER_RSA, header={"kid": "one"}),
    "no kid, with several keys": lambda: signed(header={"kid": None}),
    "a kid like a path": lambda: signed(header={"kid": "../../one"}),
    "a kid that is no string": lambda: forged({"alg": "RS256", "kid": ["one"]}, claims()),
    "an algorithm of another kind of key": lambda: signed(EC, "ES256"),
    "an algorithm that the key does not name": lambda: signed(OTHER_RSA, "PS256", header={"kid": "two"}),
    "a key of its own in the header": lambda: signed(OTHER_RSA, header={"jwk": jwk(OTHER_RSA)}),
    "jku": lambda: signed(OTHER_RSA, header={"jku": "http://127.0.0.1:1/keys"}),
    "x5u": lambda: signed(OTHER_RSA, header={"x5u": "http://127.0.0.1:1/chain"}),
    "an unknown critical extension": lambda: signed(header={"crit": ["x-new"], "x-new": 1}),
    "a content that is not encoded": lambda: signed(header={"crit": ["b64"], "b64": True}),
    "expired": lambda: signed(exp=time.time() - LEEWAY - 1),
    "no end": lambda: signed(exp=None),
    "an end that is no number": lambda: signed_raw({**claims(), "exp": "9999999999"}),
    "an end that is true": lambda: signed_raw({**claims(), "exp": True}),
    "an end beyond all time": lambda: signed_raw(
        json.dumps(claims()).replace('"exp": ', '"exp": 1e400, "x": ').encode()
    ),
    "an end of 400 digits": lambda: signed_raw({**claims(), "exp": 10**400}),
    "an end of 5,000 digits": lambda: signed_raw(json.dumps(claims(exp=7)).replace("7", "7" * 5000).encode()),
    "not valid yet": lambda: signed(nbf=time.time() + LEEWAY + 60),
    "issued in the future": lambda: signed(iat=time.time() + LEEWAY + 60),
    "another issuer": lambda: signed(iss=ISSUER + "/"),
    "an issuer in a list": lambda: signed_raw({**claims(), "iss": [ISSUER]}),
    "no issuer": lambda: signed(iss=None),
    "another audience": lambda: signed(aud="others"),
    "a part of the audience": lambda: signed(aud="birnn-staging"),
    "no audience": lambda: signed(aud=None),
    "no name": lambda: signed(sub=None),
    "a name that is none": lambda: signed(sub="lab a"),
    "a name with an end of line": lambda: signed(sub="lab\n"),
    "a name in Unicode": lambda: signed(sub="läb"),
    "a name that is no string": lambda: signed_raw({**claims(), "sub": 7}),
    "claims that are no object": lambda: signed_raw(b"[]"),
    "claims that are no JSON": lambda: signed_raw(b"\xff"),
    "claims that are deep": lambda: signed_raw(b"[" * 5000),
    "huge": lambda: signed(more="x" * 10_000),
    "three parts of nothing": lambda: "..",
    "no base64": lambda: "é.é.é",
}


def signed_raw(body: Any) -> str:
    """Any content, signed by the issuer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return jwt.PyJWS(algorithms=["RS256"]).encode(content, RSA, "RS256", {"kid": "one"})


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_the_issuers_word_is_refused(attack: str) -> None:
    keys = read_jwks(
        jwks(
            jwk(RSA),
            jwk(OTHER_RSA, "two", alg="RS256") if "names" in attack or "not name" in attack else jwk(EC, "three"),
        )
    )
    tokens = JsonWebTokens(RULES)
    token = ATTACKS[attack]()
    with pytest.raises(RefusedError) as caught:
        tokens.verify(token, keys)
    assert token not in str(caught.value)
    assert len(tokens) == 0


def test_the_attacks_start_from_a_good_token() -> None:
    keys = read_jwks(jwks(jwk(RSA), jwk(EC, "three")))
    assert JsonWebTokens(RULES).verify(signed_raw(claims()), keys).name == "lab"
    assert JsonWebTokens(RULES).verify(signed(aud=["others", AUDIENCE], nbf=time.time() + 1), keys).name == "lab"
    alone = read_jwks(jwks(jwk(RSA, kid=None)))
    assert JsonWebTokens(RULES).verify(signed(header={"kid": None}), alone).name == "lab"


BROKEN = {
    "no JSON": b"{",
    "no set": b"[]",
    "keys that are no list": b'{"keys": {}}',
    "keys that are no objects": b'{"keys": [1]}',
    "deep": b"[" * 100_000,
    "empty": jwks(),
    "only keys for encryption": jwks(jwk(RSA, use="enc")),
    "a secret RSA key": jwks(jwk(RSA, secret=True)),
    "a secret EC key": jwks(jwk(RSA, "two"), jwk(EC, secret=True)),
    "a secret key for encryption": jwks(jwk(RSA, "two"), jwk(EC, secret=True, use="enc")),
    "a symmetric key": jwks(jwk(RSA), {"kty": "oct", "kid": "two", "k": "c2VjcmV0"}),
    "two keys of one kid": jwks(jwk(RSA), jwk(EC)),
    "two keys, one without a kid": jwks(jwk(RSA), jwk(EC, None)),
    "two keys without a kid": jwks(jwk(RSA, None), jwk(EC, None)),
    "a kid that is no string": jwks(jwk(RSA, kid=cast(Any, 1))),
    "key_ops that are a number": jwks(jwk(RSA, key_ops=3)),
    "key_ops that are a string": jwks(jwk(RSA, key_ops="verify")),
    "key_ops that are null": jwks(jwk(RSA, key_ops=None)),
    "a short RSA key": jwks(jwk(rsa.generate_private_key(65537, 1024))),
    "a key without its numbers": jwks({"kty": "RSA", "kid": "one"}),
    "a point off the curve": jwks({**jwk(EC), "y": jwk(EC)["x"]}),
    "too many keys": jwks(*(jwk(RSA, str(number)) for number in range(65))),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_set_of_keys_that_cannot_be_right_is_refused(case: str) -> None:
    with pytest.raises(JwksError) as caught:
        read_jwks(BROKEN[case])
    assert len(str(caught.value)) < 200


def test_keys_for_other_uses_and_of_unknown_kinds_are_left_out() -> None:
    others = (
        {"kty": "AKP", "alg": "ML-DSA-44", "kid": "new"},
        jwk(RSA, "enc", use="enc"),
        jwk(RSA, "alg", alg="RSA-OAEP"),
    )
    assert list(read_jwks(jwks(*others, jwk(EC)))) == ["one"]


def test_a_key_is_good_for_the_algorithm_that_it_names_only() -> None:
    keys = read_jwks(jwks(jwk(RSA, alg="PS256")))
    assert JsonWebTokens(RULES).verify(signed(RSA, "PS256"), keys).name == "lab"
    with pytest.raises(RefusedError):
        JsonWebTokens(RULES).verify(signed(RSA, "RS256"), keys)


def test_a_verified_token_is_remembered_until_it_ends_or_its_key_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    now, checked = time.time(), []
    tokens, keys = JsonWebTokens(RULES), read_jwks(jwks(jwk(RSA)))
    monkeypatch.setattr(time, "time", lambda: now)
    decode = tokens._jwt.decode

    def counted(*given: Any, **more: Any) -> Any:
        checked.append(1)
        return decode(*given, **more)

    monkeypatch.setattr(tokens._jwt, "decode", counted)
    token = signed(exp=now + 100)
    for _ in range(5):
        tokens.verify(token, keys)
    assert len(checked) == 1
    monkeypatch.setattr(time, "time", lambda: now + 100 + LEEWAY)
    with pytest.raises(RefusedError, match="expired"):
        tokens.verify(token, keys)
    monkeypatch.setattr(time, "time", lambda: now)
    with pytest.raises(RefusedError, match="kid"):
        tokens.verify(token, read_jwks(jwks(jwk(EC, "three"))))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_web_tokens, "MOST_REMEMBERED", 3)
    tokens, keys = JsonWebTokens(RULES), read_jwks(jwks(jwk(ED)))
    for number in range(10):
        tokens.verify(signed(ED, "EdDSA", sub=str(number)), keys)
    assert len(tokens) == 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwks").write_bytes(jwks(jwk(RSA)))
    lines = [Grant(name="lab-a", sha256=digest_of("birnn_a"), rights=(Right.ENCODE,)), Grant(name="lab", rights=())]
    (tmp_path / "tokens").write_bytes(write_tokens(lines))
    return tmp_path


def access_of(folder: Path, **more: str) -> Access:
    named = {"jwks": str(folder / "jwks"), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    return Access(load_settings({**named, **more}))


def test_tokens_and_jwts_work_side_by_side(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    access = access_of(folder, tokens=str(folder / "tokens"))
    for secret, name in (("birnn_a", "lab-a"), (signed(), "lab"), (signed(sub="new"), "new")):
        grant = access.authorize(f"Bearer {secret}", Right.ENCODE)
        assert grant is not None
        assert grant.name == name
    with pytest.raises(ForbiddenError, match="birnn:metrics"):
        access.authorize(f"Bearer {signed()}", Right.METRICS)
    with caplog.at_level(logging.DEBUG), pytest.raises(UnauthenticatedError) as caught:
        access.authorize(f"Bearer {signed(sub='lab-a')}", Right.ENCODE)
    assert "a JWT was refused: its caller has the name of one with a token" in caplog.text
    assert caught.value.message.endswith("or a valid JWT for it")
    assert "ey" not in caplog.text


def test_refusals_are_the_same_whatever_is_wrong_and_the_log_says_what(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access, said = access_of(folder), set()
    with caplog.at_level(logging.DEBUG, logger="birnn_service"):
        for token in (signed(OTHER_RSA), signed(aud="other"), signed(exp=1), "birnn_a", "a.b.c"):
            with pytest.raises(UnauthenticatedError) as caught:
                access.authorize(f"Bearer {token}", Right.ENCODE)
            said.add(caught.value.message)
    assert len(said) == 1
    assert [word in caplog.text for word in ("InvalidSignatureError", "(aud)", "(exp)", "DecodeError")] == 4 * [True]


def test_the_name_may_be_another_claim(folder: Path) -> None:
    access = access_of(folder, jwt_name_claim="client_id")
    grant = access.authorize(f"Bearer {signed(client_id='batch')}", Right.ENCODE)
    assert grant is not None
    assert grant.name == "batch"


def test_the_keys_are_read_again_when_they_change(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    access = access_of(folder)
    assert access.authorize(f"Bearer {signed()}", Right.ENCODE)
    for content in (b"{", jwks(jwk(RSA, secret=True))):
        (folder / "jwks").write_bytes(content)
        access.reload()
        access.reload()
        assert access.authorize(f"Bearer {signed()}", Right.ENCODE)
        assert caplog.text.count("the keys read earlier stay valid") == 1
        caplog.clear()
    (folder / "jwks").write_bytes(jwks(jwk(EC, "two")))
    access.reload()
    with pytest.raises(UnauthenticatedError):
        access.authorize(f"Bearer {signed()}", Right.ENCODE)
    assert access.authorize(f"Bearer {signed(EC, 'ES256', header={'kid': 'two'})}", Right.ENCODE)


def test_what_is_missing_is_said_at_the_start(folder: Path) -> None:
    for given in ({"jwks": str(folder / "jwks")}, {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}):
        with pytest.raises(StartupError, match="--jwks, --jwt-issuer and --jwt-audience go together"):
            load_settings(given)
    (folder / "jwks").write_bytes(b"{}")
    with pytest.raises(StartupError, match="JWKS"):
        access_of(folder)
