"""The pages for everybody: no rule of axe is broken, and nothing is wider than a small phone."""

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e import steps

PHONE_PX = 360


def assert_accessible(page: Page, what: str) -> None:
    report = Axe().run(page)
    assert report.violations_count == 0, f"{what}\n{report.generate_report()}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_axe(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto("/")
    steps.expect_question(page, 1)
    steps.choose(page, "left")
    assert_accessible(page, "quiz")
    steps.take_quiz(page)
    assert_accessible(page, "result")
    page.locator("#profile-edit").click()
    assert_accessible(page, "editor")
    page.locator("#profile-cancel").click()
    page.locator("#data-delete").click()
    assert_accessible(page, "dialog")
    page.locator("#delete-cancel").click()
    page.locator("#taste-new").click()
    assert_accessible(page, "a new taste")
    page.locator("#taste-cancel").click()
    page.goto("/studio")
    steps.ask_to_paint(page, "a boat before a zeppelin")
    steps.expect_painted(page, "a boat before")
    assert_accessible(page, "studio")
    page.locator("#sharing summary").click()
    page.locator("#share-make").click()
    expect(page.locator("#share-list code")).to_be_visible()
    assert_accessible(page, "sharing")


def test_every_control_is_at_least_24_pixels_in_both_directions(page: Page) -> None:
    for path in ("/", "/studio", "/wins"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, summary, label, nav a, input")]
              .filter((e) => !e.closest("[hidden]") && e.offsetParent !== null)
              .filter((e) => { const r = e.getBoundingClientRect();
                               return r.width < 24 || r.height < 24; })
              .filter((e) => !(e.matches("input") && e.closest("label")))
              .map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert small == [], path


def test_nothing_is_wider_than_a_small_phone(page: Page) -> None:
    page.set_viewport_size({"width": PHONE_PX, "height": 740})
    steps.take_quiz(page)
    for path in ("/", "/studio", "/wins"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_PX, path


def test_the_model_is_called_what_it_is_on_every_page(page: Page) -> None:
    for path in ("/", "/studio", "/wins"):
        page.goto(path)
        expect(page.get_by_label("About the model")).to_contain_text("not a photographic model")
