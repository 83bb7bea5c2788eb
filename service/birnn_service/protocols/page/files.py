"""The files of the page: the same for everyone, with nothing secret in them."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

SITE = Path(__file__).parent / "site"
START = "index.html"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page runs its own scripts only, talks to its own server only, is shown in no frame and sends no form. Nothing that
# it receives can become a script: Trusted Types refuse to make markup of text.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    # Browsers keep the files and ask each time whether they have changed, so a new server never runs an old script.
    ("cache-control", "no-cache"),
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page.

    Attributes:
        path: Where it is on the server.
        content: Its bytes.
        media_type: What it is.
        tag: Its ETag, which depends on its content alone.
    """

    path: str
    content: bytes
    media_type: str
    tag: str

    def is_known_to(self, if_none_match: str) -> bool:
        """Whether a caller that sends this header has the file already (RFC 9110, 13.1.2)."""
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return self.tag in tags or "*" in tags


def read_files() -> list[PageFile]:
    """All files of the page, as they are installed."""
    return [_read(path) for path in sorted(SITE.iterdir())]


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    place = "/" if path.name == START else f"/page/{path.name}"
    return PageFile(place, content, MEDIA_TYPES[path.suffix], f'"{sha256(content).hexdigest()}"')
