"""Chromium, as Debian has it, and what it says of a page."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from tests.e2e.server_process import PATIENCE_SECONDS

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: `chromium`)")
WIDE, NARROW = (1280, 900), (360, 780)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window.

    Playwright's event loop counts as running as long as there is one, so no test of asyncio may run meanwhile. Only a
    module without such tests may have it as a fixture.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A tab, with all that its console has said and all that it has asked for."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        width, height = options.pop("size", WIDE)
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.context.set_default_timeout(1000 * PATIENCE_SECONDS)
        self.page: Page = self.context.new_page()
        self.closed = False
        self.said: list[str] = []
        self.asked: list[Request] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request))
        # A violation of the policy is said on the console, too, but not by all of its reports.
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('policy', event.violatedDirective))"
        )

    def text(self, selector: str) -> str:
        """What stands in an element."""
        return self.page.locator(selector).inner_text()

    def encode(self, text: str) -> None:
        """Encode a text with the chosen encoder, and wait for all that comes of it."""
        self.page.fill("#sequence", text)
        self.page.click("#encode")
        expect(self.page.locator("#told")).to_have_text(re.compile("^(Encoded by|It cannot)"))

    def close(self, *expected: str) -> None:
        """End it, before its server ends. Its console may have said what begins with the `expected` words only."""
        if not self.closed:
            self.closed = True
            self.context.close()
        unexpected = [line for line in self.said if not line.startswith(expected)]
        assert not unexpected, unexpected
