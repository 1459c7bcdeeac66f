"""The quiz and its result, in a real browser against the real application."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from ppd_model.prompts import likes_and_dislikes
from ppd_model.types import EncodedUser, LabelledPair
from tests.e2e import steps
from tests.e2e.test_access import assert_accessible
from tests.fake_runtime import FakeRuntime


def test_four_choices_become_a_profile_and_lead_to_the_studio(page: Page) -> None:
    steps.take_quiz(page)

    expect(page.locator("#profile-text")).not_to_be_empty()
    expect(page.locator("#profile-caution")).to_contain_text("4 answers only")
    shown = page.locator("#profile").inner_text()
    assert "%" not in shown, "no number is shown that nobody has checked"
    assert "sure" not in shown
    page.locator("#profile-studio").click()
    expect(page).to_have_url(re.compile(r"/studio$"))
    expect(page.locator("#studio-form")).to_be_visible()
    assert len(steps.held(page)["choices"]) == 4


def test_what_a_taste_promises_is_said_in_words_where_the_service_says_it(page: Page) -> None:
    promised: dict[str, float] = {"confidence": 0.874, "confidence_after_four_more": 0.912}

    def promise(route: Route) -> None:
        answer = route.fetch()
        held = answer.json()
        if held.get("profile"):
            held["profile"] |= promised
        route.fulfill(response=answer, json=held)

    page.route("**/preferences", promise)
    steps.take_quiz(page)
    told = page.locator("#profile-foretold")
    expect(told).to_contain_text("about 87 should please you more")
    expect(told).to_contain_text("Four more answers should make that about 91.")
    promised["confidence_after_four_more"] = 0.87
    page.reload()
    expect(told).to_contain_text("would hardly change that")
    promised.clear()
    page.reload()
    expect(page.locator("#profile-text")).not_to_be_empty()
    expect(told).to_be_hidden()


def test_the_answer_names_the_picture_that_was_clicked(page: Page) -> None:
    page.goto("/")
    pool = {
        pair["pair_id"]: [image["url"] for image in pair["images"]]
        for pair in page.request.get("/pairs?limit=100").json()["results"]
    }
    for number in (1, 2, 3):
        steps.expect_question(page, number)
        right = page.locator("#choice-image-1")
        expect(right).to_have_attribute("src", re.compile(r"^/pairs/images/"))
        clicked = right.get_attribute("src")
        steps.answer(page, "right")
        steps.expect_question(page, number + 1)
        newest = steps.held(page)["choices"][-1]
        assert pool[newest["pair_id"]][newest["preferred"]] == clicked


def preferred(page: Page) -> list[int | None]:
    """Which side was preferred in every answer: 0 the left picture, 1 the right one."""
    pairs = {
        pair["pair_id"]: [image["url"] for image in pair["images"]]
        for pair in page.request.get("/pairs?limit=100").json()["results"]
    }
    lefts = page.evaluate("window.lefts")
    sides: list[int | None] = []
    for choice in steps.held(page)["choices"]:
        urls = pairs[choice["pair_id"]]
        index = choice["preferred"]
        sides.append(None if index is None else int(urls[index] not in lefts))
    return sides


def note_lefts(page: Page) -> None:
    """Keep in mind every picture that hung on the left."""
    page.evaluate(
        """() => {
          const image = document.querySelector("#choice-image-0");
          window.lefts = [image.getAttribute("src")];
          new MutationObserver(() => window.lefts.push(image.getAttribute("src")))
            .observe(image, {attributeFilter: ["src"]});
        }"""
    )


def test_one_key_answers_and_goes_on(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    note_lefts(page)
    for key, following in (("1", 2), ("0", 2), ("2", 3), ("2", 4)):
        page.keyboard.press(key)
        steps.expect_idle(page)
        steps.expect_question(page, following)
    page.keyboard.press("1")
    expect(page.locator("#profile-title")).to_be_focused(timeout=steps.READING_TIMEOUT_MS)
    assert preferred(page) == [0, None, 1, 1, 0]


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_key_on_the_picture_in_focus_answers_and_goes_on(page: Page, key: str) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    note_lefts(page)
    focus_first_choice(page)
    for number in range(1, 5):
        steps.expect_question(page, number)
        expect(page.locator("#choice-0")).to_be_focused()
        page.keyboard.press(key)
        steps.expect_idle(page)
    expect(page.locator("#profile")).to_be_visible(timeout=steps.READING_TIMEOUT_MS)
    assert preferred(page) == [0, 0, 0, 0]


def test_digits_are_text_outside_the_quiz(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    pair = steps.shown_pair(page)
    page.get_by_role("link", name="Studio").focus()
    page.keyboard.press("1")
    page.locator("#quiz-back").evaluate("button => button.blur()")
    page.keyboard.press("Control+1")
    page.wait_for_timeout(300)
    assert steps.shown_pair(page) == pair
    assert steps.held(page)["choices"] == []
    steps.take_quiz(page)
    page.locator("#profile-edit").click()
    page.locator("#profile-input").fill("")
    page.keyboard.type("102")
    expect(page.locator("#profile-input")).to_have_value("102")


def test_a_full_quiz_by_touch_takes_four_taps_without_scrolling(
    browser: Browser, service_url: str
) -> None:
    context = browser.new_context(
        base_url=service_url,
        viewport={"width": 360, "height": 640},
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    page.goto("/")
    for number in range(1, 5):
        steps.expect_question(page, number)
        for name in ("#choice-image-0", "#choice-image-1", "label[for=choice-tie]", "#quiz-back"):
            box = page.locator(name).bounding_box()
            assert box is not None
            assert box["y"] >= 0, name
            assert box["y"] + box["height"] <= 640, name
            assert box["x"] >= 0, name
            assert box["x"] + box["width"] <= 360, name
        page.locator(f"#choice-image-{number % 2}").tap()
        steps.expect_idle(page)
        assert page.evaluate("scrollY") == 0
    expect(page.locator("#profile")).to_be_visible(timeout=steps.READING_TIMEOUT_MS)
    assert len(steps.held(page)["choices"]) == 4
    context.close()


def test_the_next_pictures_are_there_before_they_are_needed(page: Page) -> None:
    fetched: list[str] = []
    page.on(
        "requestfinished",
        lambda request: fetched.append(request.url) if "/pairs/images/" in request.url else None,
    )
    page.goto("/")
    for number in range(1, 5):
        steps.expect_question(page, number)
        page.wait_for_load_state("networkidle")
        known = set(fetched)
        steps.answer(page, "left")
        if number < 4:
            steps.expect_question(page, number + 1)
            shown = {page.locator(f"#choice-image-{i}").evaluate("i => i.src") for i in (0, 1)}
            assert shown <= known


def test_an_answer_is_taken_up_again_with_back(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    pair = steps.shown_pair(page)
    steps.answer(page, "left")
    steps.expect_question(page, 2)
    page.locator("#quiz-back").click()
    steps.expect_question(page, 1)
    assert steps.shown_pair(page) == pair
    expect(page.locator("#quiz-skip")).to_be_hidden()
    steps.press_next(page)
    steps.expect_question(page, 2)
    assert len(steps.held(page)["choices"]) == 1


def test_the_quiz_works_by_arrow_keys_and_for_screen_readers(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    expect(page.get_by_role("radiogroup", name="Which picture do you prefer?")).to_be_visible()
    expect(page.get_by_role("radio")).to_have_count(3)
    focus_first_choice(page)
    for number in range(1, 5):
        steps.expect_question(page, number)
        expect(page.locator("#choice-0")).to_be_focused()
        pair = steps.shown_pair(page)
        page.keyboard.press("ArrowRight")
        expect(page.locator("#choice-1")).to_be_checked()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#choice-0")).to_be_checked()
        steps.choose(page, "right")
        assert steps.shown_pair(page) == pair, "choosing must not go on"
        steps.press_next(page)
    expect(page.locator("#profile-title")).to_be_focused(timeout=steps.READING_TIMEOUT_MS)
    for chip in page.locator(".chip-remove").all():
        page.keyboard.press("Tab")
        expect(chip).to_be_focused()
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
    steps.expect_question(page, 1)
    page.locator("label[for=choice-0]").dblclick()

    steps.expect_question(page, 2)
    expect(page.locator("#quiz-form[aria-busy]")).to_have_count(0)
    steps.expect_question(page, 2)
    expect(page.locator("#quiz-error")).to_be_hidden()
    assert len(posts) == 1


def test_next_is_there_once_something_is_chosen(page: Page) -> None:
    page.goto("/")
    steps.expect_question(page, 1)
    expect(page.locator("#quiz-next")).to_be_hidden()
    steps.choose(page, "tie")
    expect(page.locator("#quiz-next")).to_be_visible()
    steps.press_next(page)
    expect(page.locator("#quiz-next")).to_be_hidden()
    assert [choice["preferred"] for choice in steps.held(page)["choices"]] == [None]


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


def speak(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime, text: str) -> None:
    """The model writes this profile, and reads the phrases out of every text as a list."""
    encode = runtime.encode

    def say(pairs: Sequence[LabelledPair], seed: int, edited: str | None) -> EncodedUser:
        taste = encode(pairs, seed, edited or text)
        likes, dislikes = likes_and_dislikes(taste.profile)
        return replace(taste, likes=likes, dislikes=dislikes)

    monkeypatch.setattr(runtime, "encode", say)


def test_a_phrase_is_removed_by_keyboard_and_the_removal_undone(
    page: Page, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, runtime, "Prefers shady scenes, warm light and large subjects. Avoids fog.")
    steps.take_quiz(page)
    remove = page.get_by_role("button", name="Remove “warm light” from your profile")
    remove.focus()
    page.keyboard.press("Enter")
    text = page.locator("#profile-text")
    expect(text).to_have_text("Prefers shady scenes and large subjects. Avoids fog.")
    expect(page.locator("#profile-title")).to_be_focused()
    expect(page.locator("#profile-source")).to_have_text("In your own words")
    expect(page.locator("#profile-likes span")).to_have_text(["shady scenes", "large subjects"])
    expect(page.locator("#profile-removed")).to_contain_text("Removed “warm light”.")
    assert [v["source"] for v in steps.held(page)["profiles"]] == ["generated", "edited"]
    assert_accessible(page, "result after a removal")

    page.get_by_role("button", name="Undo").click()
    expect(text).to_have_text("Prefers shady scenes, warm light and large subjects. Avoids fog.")
    expect(page.locator("#profile-removed")).to_be_hidden()
    page.get_by_role("button", name="Remove “fog”").click()
    expect(text).to_have_text("Prefers shady scenes, warm light and large subjects.")
    expect(page.locator("#profile-dislikes-block")).to_be_hidden()


def test_words_that_cannot_stand_without_the_phrase_are_left_to_the_person(
    page: Page, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, runtime, "Prefers calm scenes but dislikes fog.")
    steps.take_quiz(page)
    page.get_by_role("button", name="Remove “calm scenes”").click()
    expect(page.locator("#profile-input")).to_be_focused()
    expect(page.locator("#profile-form-error")).to_contain_text("cannot be taken out on their own")
    chosen = page.evaluate("document.getSelection().toString()")
    assert chosen == "calm scenes"
    page.locator("#profile-input").fill("Prefers calm scenes.")
    page.locator("#profile-save").click()
    expect(page.locator("#profile-source")).to_have_text("In your own words")
    page.get_by_role("button", name="Remove “calm scenes”").click()
    expect(page.locator("#profile-form-error")).to_contain_text("all that your profile says")
    assert len(steps.held(page)["profiles"]) == 2


def test_a_removal_that_was_not_saved_says_so(page: Page, noise: list[str]) -> None:
    steps.take_quiz(page)
    problem = {"status": 503, "code": "queue_full", "detail": "Full just now.", "errors": []}
    page.route(
        "**/profile",
        lambda route: route.fulfill(
            status=503, content_type="application/problem+json", body=json.dumps(problem)
        ),
    )
    page.evaluate("document.querySelector('#profile-text').textContent = 'Likes warm light, fog.'")
    page.get_by_role("button", name="Remove “warm light”").click()
    expect(page.locator("#profile-chips-error")).to_contain_text("Not saved. Full just now.")
    expect(page.locator("#profile-likes span")).to_have_text(["warm light"])
    noise.clear()


@pytest.mark.parametrize(
    ("text", "phrase", "left"),
    [
        ("Prefers art, dark art forms and parts.", "art", None),
        ("Prefers art, parts and charts.", "art", "Prefers parts and charts."),
        ("Prefers one, two and three. Avoids four.", "one", "Prefers two and three. Avoids four."),
        ("Prefers one, two and three. Avoids four.", "three", "Prefers one and two. Avoids four."),
        ("Prefers one, two, and three.", "two", "Prefers one and three."),
        ("Avoids a dark vignette or blur.", "dark vignette", "Avoids blur."),
        ("Likes one or two, or three.", "one", "Likes two or three."),
        ("Prefers one. Avoids four.", "four", "Prefers one."),
        ("Prefers one and two.\nAvoids four!", "one", "Prefers two.\nAvoids four!"),
        ("Prefers ONE and two.", "one", "Prefers two."),
        ("Prefers one.", "one", ""),
        ("One and two.", "one", None),
        ("Prefers one over two.", "two", None),
        ("Prefers one. Prefers one.", "one", None),
        ("Prefers one.", "four", None),
    ],
)
def test_a_text_without_a_phrase_still_reads_well(
    page: Page, text: str, phrase: str, left: str | None
) -> None:
    page.goto("/")
    call = """([text, phrase]) => import("/static/js/taste/phrases.js")
        .then((module) => module.withoutPhrase(text, phrase))"""
    assert page.evaluate(call, [text, phrase]) == left


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


def test_pictures_that_never_come_do_not_hold_up_the_quiz(page: Page) -> None:
    page.route("**/pairs/images/**", lambda route: None)
    page.goto("/", wait_until="commit")
    expect(page.locator("#quiz")).to_be_visible(timeout=20_000)
    for number in (1, 2):
        expect(page.locator("#quiz-count")).to_have_text(f"{number} of 4", timeout=20_000)
        expect(page.locator("#quiz-form[aria-busy]")).to_have_count(0)
        page.keyboard.press("1")
