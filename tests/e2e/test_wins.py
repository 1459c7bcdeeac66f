"""The operator's page of wins, in a real browser against the real application."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from service.core.proof.serving import Serving, Share
from service.core.proof.wins import Said, Tallies
from tests.e2e import steps
from tests.e2e.test_access import assert_accessible

KEY = "#key"


def ask(page: Page, key: str) -> None:
    page.locator(KEY).fill(key)
    page.locator("#show").click()


def test_what_people_chose_blind_is_shown_to_whoever_has_an_admins_key(
    page: Page, admin_key: str, noise: list[str]
) -> None:
    page.goto("/wins")
    ask(page, "no key at all")
    expect(page.locator("#wins-error")).to_contain_text("no such key")
    assert len(noise) == 1, "the browser says that the call was refused"
    noise.clear()

    steps.take_quiz(page)
    page.goto("/studio")
    page.locator("#blind").check()
    steps.ask_to_paint(page, "a boat at night")
    page.locator("#better-mine").click()
    expect(page.locator("#better-said")).to_contain_text("You liked yours better")

    page.goto("/wins")
    ask(page, admin_key)
    row = page.locator("#adapters-rows tr").first
    expect(row).to_contain_text("fake-adapter-1")
    expect(row).to_contain_text("%, between")
    expect(page.locator("#wins-error")).to_be_hidden()
    expect(page.locator("#adapters-title")).to_be_focused()
    assert_accessible(page, "wins")
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage])").find(admin_key) == -1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_adapters_are_compared_in_words_and_lines(
    page: Page, scheme: Literal["light", "dark"]
) -> None:
    """Of what the service would answer, had so many people chosen."""
    serving = Serving(None, "a" * 12, 0.2)
    share = Share(((datetime(2026, 1, 1, tzinfo=UTC), serving),), None)
    tallies = Tallies(1, share)
    for i in range(200):
        trial = serving.trial_of(str(i))
        won = trial is not None or i % 3 == 0
        tallies.add(str(i), [Said(i, trial or "f" * 12, trial, won, share.since)])
    answer = tallies.report().model_dump_json()
    page.route("**/admin/wins?*", lambda route: route.fulfill(body=answer))
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto("/wins")
    ask(page, "a key")
    expect(page.locator("#share-verdict")).to_contain_text("The new one is better: difference +")
    expect(page.locator("#share-facts")).to_contain_text("served 20 % of the people")
    expect(page.locator("#share-facts")).to_contain_text("and still does")
    expect(page.locator("#share-arms dd").first).to_contain_text("100 %, between")
    bar, line = (
        page.locator("#share-arms .range").nth(1).locator(part).bounding_box() for part in "ib"
    )
    assert bar is not None
    assert line is not None
    assert bar["x"] < line["x"] < bar["x"] + bar["width"], "the mean lies in its interval"
    assert_accessible(page, "wins")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.fixture(scope="session")
def admin_key(service_data_dir: Path) -> str:
    return (service_data_dir / "api-key").read_text().strip()
