"""What mkdocs calls while it builds the site; see `hooks` in mkdocs.yml."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from deploy.documentation.pages import pages, with_site_links
from deploy.documentation.reference import reference

# What a browser would load from elsewhere. Links are allowed: nothing is loaded until someone follows them.
FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|"""
    r"""<link\b[^>]*\brel="(?:stylesheet|preconnect)"[^>]*//"""
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, the reference, and links that lead to pages of the site."""
    for path, place in pages().items():
        text = with_site_links(path.read_text(encoding="utf-8"), path)
        _add(files, File.generated(config, place, content=text))
    for place, text in reference().items():
        _add(files, File.generated(config, place, content=text))
    return files


def on_post_page(output: str, page: object, config: MkDocsConfig) -> str:
    """Refuse a page that loads anything from elsewhere: readers may sit behind a firewall."""
    if found := FOREIGN.search(output):
        raise PluginError(f"{page} loads something from elsewhere: {found[0]}")
    return output


def _add(files: Files, file: File) -> None:
    if existing := files.get_file_from_path(file.src_uri):
        files.remove(existing)
    files.append(file)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Rebuild when code that the reference is made from changes (`mkdocs serve`)."""
    config.watch.extend(str(Path(folder)) for folder in ("client", "service", "protos", "README.md"))
    return config
