"""The recipes of docs/clients.md, as tests run them."""

import re

from tests.packaging.environments import ROOT

DOCUMENT = ROOT / "docs" / "clients.md"
ADDRESS, HTTP_ADDRESS = "127.0.0.1:8001", "127.0.0.1:8000"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[tuple[str, str], str]:
    """All blocks of code by heading and language; there is one block of a language under a heading."""
    found: dict[tuple[str, str], str] = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        for language, code in _BLOCK.findall(section):
            assert (heading, language) not in found, f"two blocks of {language} under {heading}"
            found[heading, language] = code
    return found


def recipe(heading: str, language: str, address: str = ADDRESS, http: str = HTTP_ADDRESS) -> str:
    """The block of a language under a heading, for the server at an address, and one of HTTP with or without scheme."""
    code = blocks()[heading, language].replace(ADDRESS, address)
    return code.replace(HTTP_ADDRESS, http.removeprefix("http://"))
