"""The quiz and its result, in a real browser against the real application."""

import json
import re

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.e2e import steps


def test_four_choices_become_a_profile_and_lead_to_the_studio(page: Page) -> None:
    steps.take_quiz(page)

    expect(page.locator("#profile-text")).not_to_be_empty()
    expect(page.locator("#profile-confidence")).to_contain_text("four answers only")
    page.locator("#profile-studio").click()
    expect(page).to_have_url(re.compile(r"/studio$"))
    expect(page.locator("#studio-form")).to_be_visible()
    assert len(steps.held(page)["choices"]) == 4


def test_the_answer_names_the_picture_that_was_clicked(page: Page) -> None:
    page.goto("/")
    pool = {
        pair["pair_id"]: [image["url"] for image in pair["images"]]
        for pair in page.request.get("/pairs?limit=100").json()["results"]
    }
    for number in (1, 2, 3):
        steps.expect_question(page, number)
        clicked = page.locator("#choice-image-1").get_attribute("src")
        steps.answer(page, "right")
        steps.expect_question(page, number + 1)
        newest = steps.held(page)["choices"][-1]
        assert pool[newest["pair_id"]][newest["preferred"]] == clicked


def test_the_quiz_works_by_keyboard_alone(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    focus_first_choice(page)
    for number in range(1, 5):
        steps.expect_question(page, number)
        expect(page.locator("#choice-0")).to_be_focused()
        pair = steps.shown_pair(page)
        page.keyboard.press("ArrowRight")
        expect(page.locator("#choice-1")).to_be_checked()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#choice-0")).to_be_checked()
        assert steps.shown_pair(page) == pair, "arrows must not go on"
        page.keyboard.press("Enter")
        expect(page.locator("#quiz-form[aria-busy]")).to_have_count(0)
    expect(page.locator("#profile-title")).to_be_focused(timeout=steps.READING_TIMEOUT_MS)
    page.keyboard.press("Tab")
    expect(page.locator("#profile-studio")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#studio-form")).to_be_visible()


def focus_first_choice(page: Page) -> None:
    """Press Tab until the first picture has the focus, as somebody without a mouse does."""
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "preferred":
            return
    pytest.fail("the pictures cannot be reached by Tab")


def test_a_reload_in_the_middle_keeps_the_answers(page: Page) -> None:
    page.goto("/")
    steps.answer(page, "left")
    steps.expect_question(page, 2)
    steps.answer(page, "right")
    steps.expect_question(page, 3)
    pair = steps.shown_pair(page)

    page.reload()

    steps.expect_question(page, 3)
    assert steps.shown_pair(page) == pair
    page.locator("#quiz-back").click()
    steps.expect_question(page, 2)
    expect(page.locator("#choice-1")).to_be_checked()


def test_answers_are_found_again_without_this_browsers_memory(page: Page) -> None:
    page.goto("/")
    steps.answer(page, "left")
    steps.expect_question(page, 2)
    steps.answer(page, "left")
    steps.expect_question(page, 3)

    page.evaluate("localStorage.clear()")
    page.reload()

    steps.expect_question(page, 3)
    page.locator("#quiz-back").click()
    steps.expect_question(page, 2)
    expect(page.locator("#quiz-form input:checked")).to_have_count(1)


def test_back_changes_an_earlier_answer(page: Page) -> None:
    page.goto("/")
    steps.answer(page, "left")
    steps.expect_question(page, 2)
    before = steps.held(page)["choices"]

    page.locator("#quiz-back").click()
    steps.expect_question(page, 1)
    expect(page.locator("#choice-0")).to_be_checked()
    steps.answer(page, "right")

    steps.expect_question(page, 2)
    after = steps.held(page)["choices"]
    assert [choice["pair_id"] for choice in after] == [choice["pair_id"] for choice in before]
    assert after[0]["preferred"] == 1 - before[0]["preferred"]


def test_no_preference_is_saved_as_a_tie_and_skip_saves_nothing(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    first = steps.shown_pair(page)
    page.locator("#quiz-skip").click()
    expect(page.locator("#live")).to_contain_text("Skipped")
    second = steps.shown_pair(page)
    assert second != first
    assert steps.held(page)["choices"] == []

    steps.answer(page, "tie")

    expect(page.locator("#live")).to_contain_text("Saved as a tie")
    assert steps.shown_pair(page) not in (first, second)
    steps.expect_question(page, 1)
    assert [choice["preferred"] for choice in steps.held(page)["choices"]] == [None]


def test_a_double_click_saves_one_answer_and_goes_one_pair_on(page: Page) -> None:
    posts: list[Request] = []
    page.on("request", lambda request: posts.append(request) if request.method == "POST" else None)
    page.goto("/")
    steps.choose(page, "left")
    page.locator("#quiz-next").dblclick()

    steps.expect_question(page, 2)
    expect(page.locator("#quiz-form[aria-busy]")).to_have_count(0)
    steps.expect_question(page, 2)
    expect(page.locator("#quiz-error")).to_be_hidden()
    assert len(posts) == 1


def test_next_without_a_choice_asks_for_one(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    page.wait_for_timeout(500)
    page.locator("#quiz-next").click()
    expect(page.locator("#quiz-error")).to_contain_text("Choose a picture first")
    steps.choose(page, "left")
    expect(page.locator("#quiz-error")).to_be_hidden()


def test_an_answer_that_was_not_saved_waits_for_its_retry(page: Page, noise: list[str]) -> None:
    keys: list[str | None] = []

    def lose_the_first(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        keys.append(route.request.header_value("Idempotency-Key"))
        if len(keys) == 1:
            route.abort()
        else:
            route.continue_()

    page.goto("/")
    page.route("**/preferences", lose_the_first)
    steps.choose(page, "right")
    page.locator("#quiz-next").click()
    expect(page.locator("#quiz-error")).to_contain_text("Not saved")
    steps.expect_question(page, 1)
    expect(page.locator("#choice-1")).to_be_checked()

    page.reload()
    expect(page.locator("#quiz-error")).to_contain_text("not saved")
    expect(page.locator("#choice-1")).to_be_checked()
    page.locator("#quiz-retry").click()

    steps.expect_question(page, 2)
    assert len(steps.held(page)["choices"]) == 1
    assert keys[0] is not None
    assert keys[0] == keys[1], "a retry must carry the key of the first try"
    assert any("ERR_FAILED" in line for line in noise)
    noise.clear()


def test_a_refusal_is_shown_in_its_own_words(page: Page, noise: list[str]) -> None:
    problem = {"status": 409, "code": "x", "detail": "The service is being moved.", "errors": []}
    page.goto("/")
    page.route(
        "**/preferences",
        lambda route: route.fulfill(
            status=409, content_type="application/problem+json", body=json.dumps(problem)
        ),
    )
    steps.answer(page, "left")
    expect(page.locator("#quiz-error")).to_contain_text("The service is being moved.")
    noise.clear()


def test_the_profile_can_be_edited_in_own_words(page: Page) -> None:
    steps.take_quiz(page)
    page.locator("#profile-edit").click()
    page.locator("#profile-input").fill("I like quiet pictures. <b>Bold</b> ones not.")
    page.locator("#profile-save").click()

    expect(page.locator("#profile-source")).to_have_text(
        "In your own words", timeout=steps.READING_TIMEOUT_MS
    )
    expect(page.locator("#profile-text")).to_contain_text("<b>Bold</b> ones not.")
    page.reload()
    expect(page.locator("#profile-text")).to_contain_text("I like quiet pictures.")


def test_four_more_answers_are_a_new_round_that_survives_a_reload(page: Page) -> None:
    steps.take_quiz(page)
    page.locator("#profile-retake").click()
    steps.expect_question(page, 1)
    steps.answer(page, "left")
    steps.expect_question(page, 2)
    page.reload()
    for number in (2, 3, 4):
        steps.expect_question(page, number)
        steps.answer(page, "left")
    expect(page.locator("#profile")).to_be_visible(timeout=steps.READING_TIMEOUT_MS)
    choices = steps.held(page)["choices"]
    assert len({choice["pair_id"] for choice in choices}) == 8


def test_data_can_be_downloaded(page: Page) -> None:
    steps.take_quiz(page)
    with page.expect_download() as download:
        page.locator("#data-export").click()
    document = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert steps.user_id(page) in json.dumps(document)
    assert download.value.suggested_filename == "my-taste.json"


def test_deleting_asks_first_and_then_starts_anew(page: Page) -> None:
    steps.take_quiz(page)
    before = steps.user_id(page)
    page.locator("#data-delete").click()
    page.locator("#delete-cancel").click()
    expect(page.locator("#profile")).to_be_visible()

    page.locator("#data-delete").click()
    page.locator("#delete-confirm").click()

    steps.expect_question(page, 1)
    assert steps.user_id(page) != before
    assert steps.held(page)["choices"] == []
