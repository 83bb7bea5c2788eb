"""One browser for the tests of a module."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.server_process import PATIENCE_SECONDS
from tests.page.browser import CHROMIUM, Visit, chromium

expect.set_options(timeout=1000 * PATIENCE_SECONDS)

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: `chromium`)")
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens a page: `visit(url, color_scheme="dark")`. At the end no console may have said anything."""
    visits: list[Visit] = []

    def opened(url: str, **options: Any) -> Visit:
        visits.append(Visit(browser, **options))
        visits[-1].page.goto(url)
        return visits[-1]

    yield opened
    for one in visits:
        one.close()
