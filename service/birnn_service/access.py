"""Who may call, and by which name a caller is known."""

import asyncio
import hmac
import logging

from birnn_service.call import Arrived
from birnn_service.errors import ForbiddenError, InvalidRequestError, StartupError, UnauthenticatedError
from birnn_service.settings import Settings
from birnn_service.token_file import NAME, Right, Token, TokenFileError, digest_of, read_tokens

logger = logging.getLogger(__name__)

AUTHORIZATION = "authorization"
# A file that has changed is noticed within so many seconds.
RELOAD_SECONDS = 1.0
# What unknown tokens are compared with.
NOBODY = Token(name="nobody", sha256="0" * 64, rights=())


class Access:
    """The tokens of a file, as it is now. Without one everybody may do everything."""

    def __init__(self, settings: Settings) -> None:
        """Read the file that the settings name.

        Raises:
            StartupError: It cannot be used.
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
                f"cannot use the tokens of {self._path}: {error}; `birnn tokens add NAME` writes such a file"
            ) from error

    async def watch(self) -> None:
        """Follow the file."""
        while self._path is not None:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                await asyncio.to_thread(self.reload)
            except Exception as error:  # a watch that ended would leave tokens in force that have been removed
                logger.error("could not look at the file of tokens", exc_info=error)

    def reload(self) -> None:
        """Take the file as it is; where it cannot be used, keep the tokens there were and say so once.

        It is read as a whole each time: it is small, and no date of a file says surely that it is the same.
        """
        assert self._path is not None
        try:
            tokens = read_tokens(self._path.read_bytes())
        except (OSError, TokenFileError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                logger.error("cannot use the tokens of %s: %s; those read before stay in force", self._path, error)
            return
        self._problem = ""
        if tokens != self._tokens:
            self._tokens = tokens
            logger.info("read %d tokens from %s", len(tokens), self._path)

    def authorize(self, authorization: str, right: Right) -> Token | None:
        """The token that was sent with a call; None where none is needed.

        Takes the same work for a token that is known as for one that is not.

        Args:
            authorization: The header of that name; empty for none.
            right: What the call needs.

        Raises:
            UnauthenticatedError: There is none, or it is unknown.
            ForbiddenError: It lacks the right.
        """
        if self._tokens is None:
            return None
        scheme, _, secret = authorization.partition(" ")
        digest = digest_of(secret.strip())
        found = self._tokens.get(digest, NOBODY)
        if not hmac.compare_digest(found.sha256, digest) or scheme.lower() != "bearer":
            what = "the token is not one of this server's" if authorization else "this server asks for a token"
            raise UnauthenticatedError(f"{what}; send `authorization: Bearer TOKEN` with one from who runs the server")
        if right not in found.rights:
            raise ForbiddenError(f"the token of {found.name} lacks the right `{right}`; send one that has it")
        return found

    def caller(self, incoming: Arrived, right: Right | None) -> str:
        """Who calls: the name of a token, or what a gateway says, or else an address.

        Raises:
            ServiceError: A call that needs `right` is refused; see `authorize`.
        """
        if right is None or (self._tokens is None and not self._caller_header):
            return incoming.caller
        token = self.authorize(incoming.header(AUTHORIZATION), right)
        if self._caller_header and (token is None or Right.GATEWAY in token.rights):
            name = incoming.header(self._caller_header)
            if name and not NAME.fullmatch(name):
                raise InvalidRequestError(
                    f"{self._caller_header} must be 1 to 64 visible ASCII characters without commas, sent once"
                )
            if name:
                return f"name:{name}"
        return f"name:{token.name}" if token else incoming.caller
