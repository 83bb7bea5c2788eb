"""Elements of HTML and SVG. Text becomes text and never markup, because no markup is ever put together from strings."""

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from birnn_bundle.quoting import printable

Child = Element | str | None
# Columns of words.
WORDS = ("what it is", "verdict", "value")


def element(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """An element with its children; those that are None are left out, as are such attributes.

    Args:
        tag: Its name.
        children: Elements and text, in order.
        attributes: By name; `_` stands for `-`, and one at the end is dropped: `class_`, `stroke_width`.
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            made.set(name.rstrip("_").replace("_", "-"), printable(text))
    last: Element | None = None
    for child in children:
        if isinstance(child, str):
            if last is None:
                made.text = (made.text or "") + printable(child)
            else:
                last.tail = (last.tail or "") + printable(child)
        elif child is not None:
            made.append(child)
            last = child
    return made


def table(header: Sequence[str], rows: Iterable[Sequence[Child]]) -> Element:
    """A table whose first column names the rows."""
    made = element("table")
    head = SubElement(SubElement(made, "thead"), "tr")
    # Numbers stand on the right, words on the left.
    kinds = ["words" if name in WORDS else None for name in header]
    head.extend(element("th", name, scope="col", class_=kind) for name, kind in zip(header, kinds, strict=True))
    body = SubElement(made, "tbody")
    for first, *others in rows:
        cells = [element("td", cell, class_=kind) for cell, kind in zip(others, kinds[1:], strict=True)]
        body.append(element("tr", element("th", first, scope="row"), *cells))
    return element("div", made, class_="table")


def markup(root: Element) -> str:
    """As HTML."""
    return tostring(root, encoding="unicode", method="html")
