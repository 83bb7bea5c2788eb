"""Which Markdown files of the repository are pages of the site, and where their links lead."""

import os
import re
import tomllib
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
# A link of Markdown to somewhere in the repository: its file, which is empty for the page itself, and its anchor.
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")


def pages() -> dict[Path, str]:
    """Where each page lies on the site, by its file in the repository."""
    found = {path: path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs").glob("*.md"))}
    found |= {
        ROOT / "README.md": "index.md",
        ROOT / "CHANGELOG.md": "changelog.md",
        ROOT / "CONTRIBUTING.md": "contributing.md",
        ROOT / "deploy" / "README.md": "deploy.md",
        ROOT / "examples" / "README.md": "examples.md",
    }
    return found | {path: f"models/{path.parts[-3]}-{path.parts[-2]}.md" for path in _cards()}


def with_site_links(text: str, source: Path) -> str:
    """A page of the repository with links that lead to pages of the site, or to the repository for all other files."""
    places = pages()
    folder = PurePosixPath(places[source]).parent
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def moved(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if not target:
            return link[0]
        file = Path(os.path.normpath(source.parent / target))
        if file in places:
            return f"]({os.path.relpath(places[file], folder)}{anchor})"
        if file.is_relative_to(ROOT / "docs"):
            return f"]({os.path.relpath(file.relative_to(ROOT / 'docs'), folder)}{anchor})"
        return f"]({project['urls']['Repository']}/blob/main/{file.relative_to(ROOT).as_posix()}{anchor})"

    return LINK.sub(moved, text)


def _cards() -> list[Path]:
    return sorted((ROOT / "models").glob("*/[0-9]*/README.md"))
