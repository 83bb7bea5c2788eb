import re
from hashlib import sha256

import pytest

from birnn_service.protocols.page.files import POLICY, SITE, PageFile, read_files

FILES = {file.path: file for file in read_files()}
HTML = FILES["/"].content.decode()
SCRIPTS = {path: file.content.decode() for path, file in FILES.items() if path.endswith(".js")}


def test_everything_that_is_installed_is_served() -> None:
    assert {file.content for file in FILES.values()} == {path.read_bytes() for path in SITE.iterdir()}
    assert FILES["/page/page.css"].tag == f'"{sha256(FILES["/page/page.css"].content).hexdigest()}"'


def test_everything_that_the_page_and_its_scripts_load_is_there() -> None:
    loaded = {f"/{path}" for path in re.findall(r'(?:href|src)="(?!#)([^"]+)"', HTML)}
    loaded |= {f"/page/{name}" for source in SCRIPTS.values() for name in re.findall(r'from "\./([^"]+)"', source)}
    assert loaded == FILES.keys() - {"/"}


def test_nothing_comes_from_elsewhere() -> None:
    for path, file in FILES.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]", text), path


def test_the_policy_needs_no_exception() -> None:
    assert "unsafe" not in POLICY
    assert not re.search(r"<style|<script(?! type=\"module\" src=)|\sstyle=|\son[a-z]+=", HTML)
    for path, source in SCRIPTS.items():
        # What makes markup or a program of text; Trusted Types would refuse it, too.
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", source), (
            path
        )


@pytest.mark.parametrize(
    ("header", "known"),
    [('"a"', True), ('"b", W/"a"', True), ("*", True), ("", False), ('"b"', False), ("a", False)],
)
def test_a_caller_that_has_a_file_is_known(header: str, known: bool) -> None:
    assert PageFile("/", b"", "", '"a"').is_known_to(header) is known
