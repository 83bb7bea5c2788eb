"""Access control: checks the credentials and rights of each call, and identifies its caller."""

import asyncio
import hmac
import logging
from concurrent.futures import ThreadPoolExecutor

from birnn_service.call import Arrived
from birnn_service.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from birnn_service.json_web_tokens import SCOPE_PREFIX, JsonWebTokens, JwtRules, Keys, RefusedError, read_jwks
from birnn_service.settings import Settings
from birnn_service.tenants import NAMED, tenant_of
from birnn_service.token_file import (
    CERTIFICATE,
    CERTIFICATE_RULE,
    NAME,
    NAME_RULE,
    Grant,
    Grants,
    Right,
    Rights,
    digest_of,
    read_tokens,
)
from birnn_service.watched_file import WatchedFile

logger = logging.getLogger(__name__)

AUTHORIZATION = "authorization"
# How often the files are checked for changes.
RELOAD_SECONDS = 1.0
# Stands in for an unknown token, so that checking one takes the same time as checking a known token.
UNKNOWN = Grant(name="unknown", sha256="0" * 64, rights=())
NOTHING = Grants()


class Access:
    """Checks calls against the settings' files and follows changes to them.

    If there is no file of tokens or keys, every call is allowed. If client certificates are the only credentials, calls
    are allowed that need the right `encode` and no other.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the files that the settings name, if any.

        Raises:
            StartupError: One cannot be read.
        """
        self._caller_header = settings.caller_header
        self._certificates = settings.tls_client_ca is not None
        self._tokens: WatchedFile[Grants] | None = None
        self._keys: WatchedFile[Keys] | None = None
        if settings.tokens is not None:
            advice = "`birnn tokens add NAME` creates a token file"
            self._tokens = WatchedFile(settings.tokens, "tokens", read_tokens, advice)
        if settings.jwks is not None:
            self._keys = WatchedFile(settings.jwks, "keys", read_jwks, "--jwks takes the issuer's JWKS")
            assert settings.jwt_issuer is not None
            assert settings.jwt_audience is not None
            self._jwt = JsonWebTokens(JwtRules(settings.jwt_issuer, settings.jwt_audience, settings.jwt_name_claim))

    @property
    def grants(self) -> Grants:
        """The current content of the token file; empty if there is no file."""
        return NOTHING if self._tokens is None else self._tokens.content

    def weight_of(self, caller: str) -> float:
        """The weight of a caller's share of the device."""
        grant = self.grants.by_name.get(tenant_of(caller))
        return 1.0 if grant is None else grant.weight

    async def watch(self) -> None:
        """Reload the files whenever they change, until cancelled."""
        if self._tokens is None and self._keys is None:
            return
        # A separate thread, so that a caller that keeps the other threads busy cannot delay the removal of its token.
        with ThreadPoolExecutor(1, thread_name_prefix="birnn-access") as thread:
            await self._watch(thread)

    async def _watch(self, thread: ThreadPoolExecutor) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self.reload)
            except Exception as error:  # if this loop ended, removed tokens would stay valid
                logger.error("could not reload the files of tokens and keys", exc_info=error)

    def reload(self) -> None:
        """Read the files again; see `WatchedFile.reload`."""
        for file in (self._tokens, self._keys):
            if file is not None:
                file.reload()

    def authorize(self, authorization: str, right: Rights, certificate: str | None = None) -> Grant | None:
        """Check the credentials of a call. Known and unknown tokens take the same time.

        Args:
            authorization: The value of the `authorization` header; empty if there is none.
            right: The right that the call needs; if there are several, one is enough.
            certificate: The name in the caller's certificate, empty if there is no usable one; None if this server
                does not ask for certificates.

        Returns:
            The caller's grant; None if this server requires no credentials.

        Raises:
            UnauthenticatedError: The token or certificate is missing or unknown.
            ForbiddenError: The caller lacks the right.
        """
        if self._tokens is None and self._keys is None:
            if certificate is None:
                return None
            grant, what = _by_certificate_alone(certificate), "certificate"
        elif authorization or not certificate:
            grant, what = self._by_token(authorization), "token"
        else:
            grant, what = self._by_certificate(certificate), "certificate"
        needed = (right,) if isinstance(right, Right) else right
        if not any(one in grant.rights for one in needed):
            rights = " or ".join(f"`{one}`" for one in needed)
            raise ForbiddenError(
                f"the {what} of {grant.name} lacks the right {rights}; send a token or certificate that has it"
                + (f" (a JWT has it by the scope {SCOPE_PREFIX}{needed[0]})" if self._keys else ""),
                NAMED + grant.name,
            )
        return grant

    def caller(self, incoming: Arrived, right: Rights | None) -> str:
        """Identify the caller: by the name of its token or certificate, by the gateway's header, or by its address.

        Raises:
            ServiceError: The call needs `right` and is refused; see `authorize`.
        """
        asks = self._tokens is not None or self._keys is not None or self._certificates
        if right is None or not (asks or self._caller_header):
            return incoming.caller
        certificate = incoming.certificate_name if self._certificates else None
        grant = self.authorize(incoming.header(AUTHORIZATION), right, certificate)
        believed = grant is None or Right.GATEWAY in grant.rights or (self._tokens is None and self._keys is None)
        if self._caller_header and believed:
            name = incoming.header(self._caller_header)
            if name and not NAME.fullmatch(name):
                raise InvalidRequestError(f"{self._caller_header} must be {NAME_RULE}, sent once")
            if name:
                return NAMED + name
        return NAMED + grant.name if grant else incoming.caller

    def _by_token(self, authorization: str) -> Grant:
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        digest = digest_of(secret)
        found = self.grants.by_digest.get(digest, UNKNOWN)
        known = hmac.compare_digest(found.sha256 or "", digest)
        if scheme.lower() == "bearer" and known:
            return found
        if scheme.lower() == "bearer" and self._keys is not None and secret.count(".") == 2:
            try:
                grant = self._jwt.verify(secret, self._keys.content)
                self._check_name(grant.name)
                return grant
            except RefusedError as error:
                logger.debug("a JWT was refused: %s", error)
        what = "the token is not one of this server's" if authorization else "this server requires a token"
        raise UnauthenticatedError(
            f"{what}; send `authorization: Bearer TOKEN` with a token from the operator of this server"
            + (" or a valid JWT for it" if self._keys else "")
        )

    def _check_name(self, name: str) -> None:
        """Refuse a JWT with the name of a caller in the token file: it would use that caller's share and cache."""
        line = self.grants.by_name.get(name)
        if line is not None and (line.sha256 or line.certificate):
            raise RefusedError("its caller has the name of one with a token or a certificate")

    def _by_certificate(self, certificate: str) -> Grant:
        if (grant := self.grants.by_certificate.get(certificate)) is None:
            raise UnauthenticatedError(
                "this server does not know your certificate; send `authorization: Bearer TOKEN` with a token from the "
                "operator of this server, who can also add the certificate"
            )
        return grant


def _by_certificate_alone(certificate: str) -> Grant:
    """The grant of a certificate on a server without tokens and keys."""
    if not CERTIFICATE.fullmatch(certificate):
        raise UnauthenticatedError(
            "your certificate has expired, or does not say who you are; it needs a URI or DNS name, or else a common "
            f"name, of {CERTIFICATE_RULE}"
        )
    return Grant.model_construct(name=certificate, rights=(Right.ENCODE,))
