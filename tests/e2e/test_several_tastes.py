"""Several tastes, and sharing one, in a real browser."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e import steps
from tests.e2e.test_studio import PROMPT, open_studio


def begin_taste(page: Page, name: str) -> None:
    page.locator("#taste-new").click()
    page.locator("#taste-name").fill(name)
    page.locator("#taste-form button[type=submit]").click()


def say(page: Page, words: str) -> None:
    """A profile of words, from the quiz."""
    page.locator("#quiz-words").click()
    page.locator("#words-input").fill(words)
    page.locator("#words-save").click()
    expect(page.locator("#profile")).to_be_visible(timeout=steps.READING_TIMEOUT_MS)


def test_a_further_taste_has_a_quiz_and_a_profile_of_its_own(page: Page) -> None:
    steps.take_quiz(page)
    first = page.locator("#profile-text").inner_text()
    expect(page.locator("#taste-delete")).to_be_hidden()
    begin_taste(page, "work")
    steps.expect_question(page, 1)
    expect(page.locator("#taste-select")).to_have_value("work")
    say(page, "Dark and quiet pictures.")
    expect(page.locator("#profile-text")).to_have_text("Dark and quiet pictures.")

    page.reload()
    expect(page.locator("#profile-text")).to_have_text("Dark and quiet pictures.")
    page.locator("#taste-select").select_option("")
    expect(page.locator("#profile-text")).to_have_text(first)
    expect(page.locator("#answers-count")).to_have_text("Your 4 answers")

    page.locator("#taste-select").select_option("work")
    expect(page.locator("#profile-text")).to_have_text("Dark and quiet pictures.")
    page.locator("#taste-delete").click()
    page.locator("#taste-delete-confirm").click()
    expect(page.locator("#profile-text")).to_have_text(first)
    expect(page.locator("#taste-select option")).to_have_count(1)


def test_a_name_that_cannot_be_one_is_explained(page: Page) -> None:
    steps.take_quiz(page)
    begin_taste(page, "at home")
    expect(page.locator("#taste-error")).to_contain_text("no spaces")
    expect(page.locator("#taste-name")).to_be_focused()
    page.locator("#taste-cancel").click()
    expect(page.locator("#taste-select option")).to_have_count(1)


def test_pictures_and_answers_are_of_the_taste_that_was_painted_in(page: Page) -> None:
    steps.take_quiz(page)
    begin_taste(page, "work")
    steps.expect_question(page, 1)
    say(page, "Dark and quiet pictures.")
    page.locator("#profile-studio").click()
    expect(page.locator("#taste-text")).to_have_text("Dark and quiet pictures.")
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    page.locator("#facts summary").click()
    expect(page.locator("#facts-list")).to_contain_text("work")
    of_work = steps.picture(page, "mine")

    page.locator("#taste-select").select_option("")
    expect(page.locator("#taste-text")).not_to_have_text("Dark and quiet pictures.")
    with page.expect_response(lambda answer: answer.request.method == "POST") as sent:
        page.locator("#better-mine").click()
    assert sent.value.url.endswith("/preferences?taste=work"), "of the taste it was painted in"

    page.locator("#seed-lock").check()
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    assert steps.picture(page, "mine") != of_work


@pytest.fixture
def friend(browser: Browser, service_url: str, noise: list[str]) -> Page:
    """Somebody else's browser."""
    context = browser.new_context(base_url=service_url)
    page = context.new_page()
    page.on("pageerror", lambda error: noise.append(f"script: {error}"))
    return page


def test_a_taste_is_shared_by_a_code_until_it_is_ended(page: Page, friend: Page) -> None:
    steps.take_quiz(page)
    text = page.locator("#profile-text").inner_text()
    open_studio(page)
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    page.locator("#sharing summary").click()
    page.locator("#share-make").click()
    code = page.locator("#share-list code").inner_text()
    assert re.fullmatch(r"[a-z2-7]{26}", code)
    expect(page.locator("#share-list button").first).to_be_focused()
    seed = page.locator("#seed").input_value()

    open_studio(friend)
    friend.locator("#sharing summary").click()
    friend.locator("#taste-code").fill(f" {code.upper()} ")
    friend.locator("#seed").fill(seed)
    steps.ask_to_paint(friend, PROMPT)
    steps.expect_painted(friend, PROMPT)
    assert steps.picture(friend, "mine") == steps.picture(page, "mine")
    expect(friend.locator("#frame-mine figcaption strong")).to_have_text("Shared")
    expect(friend.locator("#better-question")).to_be_hidden()
    expect(friend.locator("#taste-text")).to_contain_text("somebody shared with you")
    friend.locator("#facts summary").click()
    expect(friend.locator("#facts-list")).to_contain_text("shared with you")
    assert text not in friend.content()

    page.reload()
    page.locator("#sharing summary").click()
    expect(page.locator("#share-list code")).to_have_text(code)
    page.locator("#share-list button", has_text="End it").click()
    expect(page.locator("#share-list li")).to_have_count(0)
    expect(page.locator("#share-make")).to_be_focused()
    friend.locator("#seed").fill("12345")
    friend.locator("#go").click()
    expect(friend.locator("#studio-error")).to_contain_text("No taste is shared under this code")
    expect(friend.locator("#taste-code")).to_be_focused()
    friend.locator("#taste-code").fill("")
    steps.ask_to_paint(friend, PROMPT)
    steps.expect_painted(friend, PROMPT)
    expect(friend.locator("#frame-mine figcaption strong")).to_have_text("Yours")
    friend.context.close()


def test_a_shared_taste_without_a_profile_is_said_to_be_the_shared_one(
    page: Page, friend: Page
) -> None:
    open_studio(page)
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    page.locator("#sharing summary").click()
    page.locator("#share-make").click()
    code = page.locator("#share-list code").inner_text()

    open_studio(friend)
    friend.locator("#sharing summary").click()
    friend.locator("#taste-code").fill(code)
    steps.ask_to_paint(friend, PROMPT)
    steps.expect_painted(friend, PROMPT)
    expect(friend.locator("#frame-mine .frame-note")).to_have_text(
        "not personalised: the shared taste has no profile yet"
    )
    expect(friend.locator("#frame-base .frame-note")).to_have_text("same seed, without it")
    friend.context.close()
