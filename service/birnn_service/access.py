"""Access control: checks tokens and rights, and names the caller of each call."""

import asyncio
import hmac
import logging

from birnn_service.call import Arrived
from birnn_service.errors import ForbiddenError, InvalidRequestError, StartupError, UnauthenticatedError
from birnn_service.settings import Settings
from birnn_service.token_file import NAME, NAME_RULE, Right, Token, TokenFileError, digest_of, read_tokens

logger = logging.getLogger(__name__)

AUTHORIZATION = "authorization"
# Seconds between two looks at the file.
RELOAD_SECONDS = 1.0
# Stands in for an unknown token, so that checking one takes the same time as checking a known token.
NOBODY = Token(name="nobody", sha256="0" * 64, rights=())


class Access:
    """Checks calls against the tokens in a file and follows changes to it. Without a file, every call is allowed."""

    def __init__(self, settings: Settings) -> None:
        """Read the token file that the settings name, if any.

        Raises:
            StartupError: The file cannot be read.
        """
        self._path = settings.tokens
        self._caller_header = settings.caller_header
        self._tokens: dict[str, Token] | None = None
        self._problem = ""
        if self._path is None:
            return
        try:
            self._tokens = read_tokens(self._path.read_bytes())
        except (OSError, TokenFileError) as error:
            raise StartupError(
                f"cannot read the tokens in {self._path}: {error}; `birnn tokens add NAME` creates a token file"
            ) from error

    async def watch(self) -> None:
        """Reload the file whenever it changes, until cancelled."""
        while self._path is not None:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                await asyncio.to_thread(self.reload)
            except Exception as error:  # if this loop ended, removed tokens would stay valid
                logger.error("could not reload the token file", exc_info=error)

    def reload(self) -> None:
        """Read the file again. If it is broken, keep the current tokens and log the reason once.

        The whole file is read every time: it is small, and a modification time does not reliably show changes.
        """
        assert self._path is not None
        try:
            tokens = read_tokens(self._path.read_bytes())
        except (OSError, TokenFileError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                logger.error("cannot read the tokens in %s: %s; the tokens read earlier stay valid", self._path, error)
            return
        self._problem = ""
        if tokens != self._tokens:
            self._tokens = tokens
            logger.info("read %d tokens from %s", len(tokens), self._path)

    def authorize(self, authorization: str, right: Right) -> Token | None:
        """Check the token of a call, in the same time for known and unknown tokens.

        Args:
            authorization: The value of the `authorization` header; empty if there is none.
            right: The right that the call needs.

        Returns:
            The token; None if this server uses no tokens.

        Raises:
            UnauthenticatedError: The token is missing or unknown.
            ForbiddenError: The token lacks the right.
        """
        if self._tokens is None:
            return None
        scheme, _, secret = authorization.partition(" ")
        digest = digest_of(secret.strip())
        found = self._tokens.get(digest, NOBODY)
        if not hmac.compare_digest(found.sha256, digest) or scheme.lower() != "bearer":
            what = "the token is not one of this server's" if authorization else "this server requires a token"
            raise UnauthenticatedError(
                f"{what}; send `authorization: Bearer TOKEN` with a token from the operator of this server"
            )
        if right not in found.rights:
            raise ForbiddenError(f"the token of {found.name} lacks the right `{right}`; send a token that has it")
        return found

    def caller(self, incoming: Arrived, right: Right | None) -> str:
        """Identify the caller: by the name of its token, by the gateway's header, or by its address.

        Raises:
            ServiceError: The call needs `right` and is refused; see `authorize`.
        """
        if right is None or (self._tokens is None and not self._caller_header):
            return incoming.caller
        token = self.authorize(incoming.header(AUTHORIZATION), right)
        if self._caller_header and (token is None or Right.GATEWAY in token.rights):
            name = incoming.header(self._caller_header)
            if name and not NAME.fullmatch(name):
                raise InvalidRequestError(f"{self._caller_header} must be {NAME_RULE}, sent once")
            if name:
                return f"name:{name}"
        return f"name:{token.name}" if token else incoming.caller
