"""Pictures of every page of a running service, in light, dark and on a narrow screen.

    python -m tests.e2e.screenshots --url http://127.0.0.1:8000 --out DIR

A fresh visitor answers the quiz, reads the result and paints one pair in the studio.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.e2e.browser import chromium

TIMEOUT_MS = 120_000


@dataclass(frozen=True)
class Look:
    """One way to see the pages."""

    name: str
    scheme: Literal["light", "dark"]
    viewport: ViewportSize


LOOKS = (
    Look("light", "light", {"width": 1280, "height": 860}),
    Look("dark", "dark", {"width": 1280, "height": 860}),
    Look("mobile", "light", {"width": 360, "height": 640}),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", nargs="*", default=[], help="default: the first suggestion")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=TIMEOUT_MS)
    with chromium() as browser:
        for look in LOOKS:
            visit(browser, look, options.url, options.out, options.prompts)


def visit(browser: Browser, look: Look, url: str, out: Path, prompts: Sequence[str]) -> None:
    """Walk through all pages once as a new visitor."""
    context = browser.new_context(
        base_url=url,
        color_scheme=look.scheme,
        viewport=look.viewport,
        device_scale_factor=2,
        reduced_motion="reduce",
    )
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()

    def keep(name: str, full_page: bool = False) -> None:
        page.wait_for_load_state("networkidle")
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=out / f"{name}-{look.name}.png", full_page=full_page)

    page.goto("/")
    answer_quiz(page, on_second=lambda: keep("quiz"))
    expect(page.locator("#profile")).to_be_visible()
    keep("result", full_page=True)
    page.goto("/studio")
    keep("studio-empty")
    paint(page, prompts)
    keep("studio", full_page=look.name == "mobile")
    page.locator("#view-flip").check(force=True)
    keep("studio-in-place")
    context.close()


def answer_quiz(page: Page, on_second: Callable[[], None]) -> None:
    """Answer until the profile is being read; `on_second()` while the second pair is open."""
    for number in range(1, 5):
        expect(page.locator("#quiz-count")).to_have_text(f"{number} of 4")
        if number == 2:
            on_second()
        page.locator(f"label[for=choice-{number % 2}]").click()


def paint(page: Page, prompts: Sequence[str]) -> None:
    """Paint one pair for each prompt, or one for the first suggestion."""
    asked: Sequence[str | None] = prompts or [None]
    for prompt in asked:
        if prompt is None:
            page.locator(".idea").first.click()
        else:
            page.locator("#prompt").fill(prompt)
        page.locator("#go").click()
        expect(page.locator("#image-mine")).to_be_visible()
        expect(page.locator("#go")).to_be_enabled()


if __name__ == "__main__":
    main()
