"""The studio, in a real browser against the real application."""

import pytest
from playwright.sync_api import Page, Route, expect

from service.core.errors import JobFailure
from tests.e2e import steps
from tests.fake_runtime import FakeRuntime

PROMPT = "a boat at night"


def open_studio(page: Page) -> None:
    page.goto("/studio")
    expect(page.locator(".idea").first).to_be_visible()


def test_yours_hangs_beside_the_base_of_the_same_seed(page: Page) -> None:
    steps.take_quiz(page)
    page.locator("#profile-studio").click()
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)

    expect(page.locator("#frame-mine .frame-note")).to_have_text("strength 1.00")
    expect(page.locator("#frame-base .frame-note")).to_have_text("same seed, without you")
    assert steps.picture(page, "mine") != steps.picture(page, "base")
    page.locator("#facts summary").click()
    expect(page.locator("#facts-list")).to_contain_text("adapter version")


def test_the_example_in_the_prompts_field_is_one_that_the_model_knows(page: Page) -> None:
    open_studio(page)
    example = page.locator("#prompt").get_attribute("placeholder")
    assert example
    page.locator("#prompt").fill(example)
    expect(page.locator("#prompt-hint")).to_have_text("mini knows all of these words.")


def test_strength_zero_is_exactly_the_base(page: Page) -> None:
    steps.take_quiz(page)
    open_studio(page)
    steps.ask_to_paint(page, PROMPT, strength=0)
    steps.expect_painted(page, PROMPT)

    expect(page.locator("#frame-mine .frame-note")).to_contain_text("exactly the base")
    assert steps.picture(page, "mine") == steps.picture(page, "base")


def test_without_a_profile_the_studio_says_that_nothing_is_personal(page: Page) -> None:
    open_studio(page)
    expect(page.locator("#taste-text")).to_contain_text("no profile of you yet")
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    expect(page.locator("#frame-mine .frame-note")).to_contain_text("not personalised")
    assert steps.picture(page, "mine") == steps.picture(page, "base")


def test_progress_is_shown_step_by_step(page: Page) -> None:
    open_studio(page)
    page.evaluate(
        """() => {
          window.seen = [];
          const step = document.querySelector("#frame-mine .frame-step");
          new MutationObserver(() => window.seen.push(step.textContent))
            .observe(step, {childList: true});
        }"""
    )
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    seen = page.evaluate("window.seen")
    numbers = [int(words.split()[1]) for words in seen if words.startswith("Step ")]
    assert len(set(numbers)) >= 3, seen
    assert numbers == sorted(numbers), seen


def test_the_picture_is_shown_while_it_is_made(page: Page, runtime: FakeRuntime) -> None:
    open_studio(page)
    runtime.preview_every, runtime.step_s = 2, 0.15
    steps.ask_to_paint(page, PROMPT)
    preview = page.locator("#preview-mine")
    expect(preview).to_be_visible()
    alt = preview.get_attribute("alt") or ""
    assert alt.startswith(f"Preview of {PROMPT}, in your taste, not finished: step ")
    assert preview.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    runtime.step_s = 0.01
    steps.expect_painted(page, PROMPT)
    for kind in ("mine", "base"):
        expect(page.locator(f"#preview-{kind}")).to_be_hidden()
        assert page.locator(f"#preview-{kind}").get_attribute("src") is None


def test_words_that_the_model_does_not_know_are_named(page: Page) -> None:
    open_studio(page)
    page.locator("#prompt").fill("a zeppelin before a <i>boat</i>")
    expect(page.locator("#prompt-hint strong")).to_have_text(["zeppelin", "i"])
    page.locator(".idea").first.click()
    expect(page.locator("#prompt-hint")).to_have_text("mini knows all of these words.")


def test_a_refusal_is_shown_in_words_and_loses_nothing(page: Page, noise: list[str]) -> None:
    open_studio(page)
    page.locator("#prompt").evaluate("box => box.removeAttribute('maxlength')")
    prompt = "boat " * 240
    steps.ask_to_paint(page, prompt)
    expect(page.locator("#studio-error")).to_contain_text("1000")
    expect(page.locator("#prompt")).to_have_value(prompt)
    expect(page.locator("#go")).to_be_enabled()
    page.reload()
    expect(page.locator("#prompt")).to_have_value(prompt)

    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    expect(page.locator("#studio-error")).to_be_hidden()
    assert all("422" in line for line in noise), noise
    noise.clear()


def test_a_seed_that_is_no_seed_is_refused_here(page: Page) -> None:
    open_studio(page)
    page.locator("#seed").fill("4294967296")
    steps.ask_to_paint(page, PROMPT)
    expect(page.locator("#studio-error")).to_contain_text("whole number from 0 to 4294967295")
    expect(page.locator("#seed")).to_be_focused()


def test_painting_can_be_cancelled(page: Page, runtime: FakeRuntime) -> None:
    open_studio(page)
    runtime.gate.clear()
    steps.ask_to_paint(page, PROMPT)
    expect(page.locator(".frame-step", has_text="Painting").first).to_be_visible()
    page.locator("#cancel").click()

    expect(page.locator("#go")).to_be_enabled()
    expect(page.locator("#live")).to_contain_text("Cancelled")
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#gallery li")).to_have_count(0)


def test_a_picture_that_fails_says_why_and_the_next_one_works(
    page: Page, runtime: FakeRuntime
) -> None:
    open_studio(page)
    runtime.fail_with = JobFailure("numerical_error")
    steps.ask_to_paint(page, PROMPT)
    expect(page.locator("#studio-error")).to_contain_text("values that are not finite")
    runtime.fail_with = None
    page.locator("#go").click()
    steps.expect_painted(page, PROMPT)


def test_a_reload_while_painting_takes_it_up_again(page: Page, runtime: FakeRuntime) -> None:
    open_studio(page)
    runtime.gate.clear()
    steps.ask_to_paint(page, PROMPT)
    expect(page.locator(".frame-step", has_text="Painting").first).to_be_visible()
    page.reload()
    expect(page.locator("#cancel")).to_be_visible()
    runtime.gate.set()
    steps.expect_painted(page, PROMPT)
    expect(page.locator("#gallery li")).to_have_count(1)


def test_the_two_can_be_flipped_in_place(page: Page) -> None:
    open_studio(page)
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    page.locator("#view-flip").check()
    expect(page.locator("#image-mine")).to_be_visible()
    expect(page.locator("#image-base")).to_be_hidden()
    box = page.locator("#image-mine").bounding_box()

    page.locator("#flip").click()

    expect(page.locator("#image-base")).to_be_visible()
    expect(page.locator("#image-mine")).to_be_hidden()
    assert page.locator("#image-base").bounding_box() == box
    page.reload()
    expect(page.locator("#view-flip")).to_be_checked()


def test_the_gallery_keeps_pairs_and_gives_back_their_settings(page: Page) -> None:
    open_studio(page)
    steps.ask_to_paint(page, PROMPT, strength=0.5)
    steps.expect_painted(page, PROMPT)
    first_seed = page.locator("#seed").input_value()
    other = "a fish in the hills"
    steps.ask_to_paint(page, other, strength=1)
    steps.expect_painted(page, other)
    assert page.locator("#seed").input_value() != first_seed, "an unlocked seed is drawn anew"

    page.reload()
    expect(page.locator("#gallery li")).to_have_count(2)
    page.locator("#gallery li button").nth(1).click()

    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#seed")).to_have_value(first_seed)
    expect(page.locator("#strength")).to_have_value("0.5")
    expect(page.locator("#seed-lock")).to_be_checked()
    before = steps.picture(page, "base")
    steps.ask_to_paint(page, PROMPT)
    expect(page.locator("#go")).to_be_enabled(timeout=steps.PAINTING_TIMEOUT_MS)
    steps.expect_painted(page, PROMPT)
    assert steps.picture(page, "base") == before
    expect(page.locator("#gallery li")).to_have_count(2)


def test_a_prompt_that_is_too_long_for_the_model_is_said_to_be_cut(
    page: Page, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "unread", lambda prompt: prompt[6:])
    open_studio(page)
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    expect(page.locator("#stage-warning")).to_contain_text("no more than the first 6 characters")


def painted(runtime: FakeRuntime, page: Page, strength: float) -> int:
    """How many pictures the model made for one press of the button."""
    before = len(runtime.generated)
    steps.ask_to_paint(page, PROMPT, strength=strength)
    expect(page.locator("#go")).to_be_enabled(timeout=steps.PAINTING_TIMEOUT_MS)
    note = f"strength {strength:.2f}"
    expect(page.locator("#frame-mine .frame-note")).to_have_text(note)
    return len(runtime.generated) - before


def test_at_a_kept_seed_only_what_changes_is_painted(page: Page, runtime: FakeRuntime) -> None:
    steps.take_quiz(page)
    open_studio(page)
    page.locator("#seed").fill("4711")  # which also keeps it
    assert painted(runtime, page, 1.0) == 2
    base = page.locator("#image-base").get_attribute("src")
    assert painted(runtime, page, 0.5) == 1  # the slider: the base is there already
    assert page.locator("#image-base").get_attribute("src") == base

    page.goto("/")
    page.locator("#profile-edit").click()
    page.locator("#profile-form textarea").fill("Prefers dark pictures.")
    page.locator("#profile-save").click()
    expect(page.locator("#profile-text")).to_have_text("Prefers dark pictures.")
    open_studio(page)
    assert painted(runtime, page, 0.5) == 1  # the taste
    page.locator("#gallery li button").nth(1).click()
    expect(page.locator("#strength")).to_have_value("1")
    page.locator("#gallery li button").nth(0).click()
    assert painted(runtime, page, 0.5) == 0  # a picture of the gallery, painted again


def frame_order(page: Page) -> list[str | None]:
    """Which frame hangs first, and which second."""
    frames = page.locator("#frames figure")
    return [frames.nth(i).get_attribute("data-kind") for i in range(2)]


def test_the_one_that_is_liked_better_becomes_an_answer(page: Page) -> None:
    steps.take_quiz(page)
    open_studio(page)
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    expect(page.locator("#better-question")).to_be_visible()
    page.locator("#better-base").click()
    expect(page.locator("#better-said")).to_contain_text("You liked the base better.")
    expect(page.locator("#better-mine")).to_be_hidden()
    answer = steps.held(page)["choices"][-1]
    assert (answer["origin"], answer["preferred"], answer["caption"]) == ("made", 1, PROMPT)
    page.reload()
    expect(page.locator("#better-said")).to_contain_text("You liked the base better.")


def test_asked_blind_nothing_tells_which_is_which_until_it_is_answered(page: Page) -> None:
    steps.take_quiz(page)
    open_studio(page)
    page.locator("#blind").check()
    orders = set()
    for seed in range(12):
        page.locator("#seed").fill(str(seed))
        steps.ask_to_paint(page, PROMPT)
        expect(page.locator("#stage-caption")).to_contain_text(f"seed {seed}")
        expect(page.locator("#go")).to_be_enabled()
        orders.add(tuple(frame_order(page)))
        for kind in ("mine", "base"):
            expect(page.locator(f"#image-{kind}")).to_have_attribute("alt", f"{PROMPT}, one of two")
            expect(page.locator(f"#frame-{kind} strong")).to_be_hidden()
        if len(orders) == 2:
            break
    assert len(orders) == 2, "chance hung them in one order twelve times"
    page.locator("#better-mine").click()
    expect(page.locator("#frame-mine strong")).to_be_visible()
    assert frame_order(page) == ["mine", "base"]
    expect(page.locator("#better-said")).to_contain_text("You liked yours better.")


def test_painted_blind_the_pair_before_tells_nothing_and_a_base_that_was_told_proves_nothing(
    page: Page,
) -> None:
    steps.take_quiz(page)
    open_studio(page)
    page.locator("#seed").fill("5")
    steps.ask_to_paint(page, PROMPT)
    steps.expect_painted(page, PROMPT)
    page.locator("#blind").check()
    held: list[Route] = []
    page.route("**/generate", lambda route: held.append(route))
    page.locator("#strength").fill("0.5")
    steps.ask_to_paint(page, PROMPT)
    for kind in ("mine", "base"):
        expect(page.locator(f"#image-{kind}")).to_have_css("visibility", "hidden")
    for route in held:
        route.continue_()
    expect(page.locator("#better-mine")).to_be_visible()
    expect(page.locator("#image-mine")).to_be_visible()
    with page.expect_request("**/preferences") as request:
        page.locator("#better-mine").click()
    assert request.value.post_data_json["choices"][0]["blind"] is False


def test_answers_are_given_for_training_by_one_switch_that_is_off_until_then(page: Page) -> None:
    open_studio(page)
    switch = page.get_by_role("switch", name="Let my answers help to train the model")
    expect(switch).to_be_enabled()
    expect(switch).not_to_be_checked()
    assert steps.held(page)["contribute"] is False
    for wanted in (True, False):
        switch.set_checked(wanted)
        expect(switch).to_be_enabled()
        assert steps.held(page)["contribute"] is wanted
        page.reload()
        expect(switch).to_be_checked(checked=wanted)


def test_a_switch_that_was_not_heard_goes_back_and_says_so(page: Page, noise: list[str]) -> None:
    open_studio(page)
    switch = page.get_by_role("switch", name="Let my answers help to train the model")
    expect(switch).to_be_enabled()
    page.route("**/contribution", lambda route: route.abort())
    switch.click()
    expect(page.locator("#contribute-error")).to_contain_text("Not changed.")
    expect(switch).not_to_be_checked()
    assert any("ERR_FAILED" in line for line in noise)
    noise.clear()
