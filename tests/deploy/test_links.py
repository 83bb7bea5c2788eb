"""Links between the Markdown files of the repository lead somewhere, with their anchors."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.documentation.pages import LINK, ROOT, pages

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
PAGES = sorted(pages())


def anchors(text: str) -> set[str]:
    """Anchors of headings as GitHub and the site make them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = next(number for number in range(1000) if (f"{anchor}-{number}" if number else anchor) not in found)
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


def broken(source: Path) -> Iterator[str]:
    """Links of a file that lead nowhere."""
    for target, anchor in LINK.findall(FENCE.sub("", source.read_text(encoding="utf-8"))):
        file = Path(os.path.normpath(source.parent / target)) if target else source
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and anchor[1:] not in anchors(file.read_text(encoding="utf-8")):
            yield f"{target}{anchor}: no such heading"


@pytest.mark.parametrize("source", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(source: Path) -> None:
    assert list(broken(source)) == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A *fine*, `short` heading\n[a](#a-fine-short-heading) [b](#b) [c](c.md) [d](https://d.example)\n"
    )
    assert list(broken(page)) == ["#b: no such heading", "c.md: no such file"]
