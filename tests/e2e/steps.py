"""What a person does on the pages, named once for all tests."""

from typing import Any, Literal

from playwright.sync_api import Page, Response, expect

READING_TIMEOUT_MS = 60_000
PAINTING_TIMEOUT_MS = 60_000
Side = Literal["left", "right", "tie"]

_INPUT = {"left": "choice-0", "right": "choice-1", "tie": "choice-tie"}


def expect_question(page: Page, number: int) -> None:
    """The quiz shows question `number` of four."""
    expect(page.locator("#quiz")).to_be_visible()
    expect(page.locator("#quiz-count")).to_have_text(f"{number} of 4")


def shown_pair(page: Page) -> str:
    """The pictures on the wall, as one string that differs between pairs."""
    sources = [page.locator(f"#choice-image-{side}").get_attribute("src") for side in (0, 1)]
    return " ".join(source or "" for source in sources)


def choose(page: Page, side: Side) -> None:
    """Set a radio button without going on, as arrow keys and screen readers do."""
    expect(page.locator("#quiz")).to_be_visible()
    page.locator(f"#{_INPUT[side]}").dispatch_event("click")


def press_next(page: Page) -> None:
    """Press Next and wait until the answer is saved and something else is shown."""
    page.locator("#quiz-next").click()
    expect_idle(page)


def expect_idle(page: Page) -> None:
    """Nothing is being saved or loaded."""
    expect(page.locator("#quiz-form[aria-busy]")).to_have_count(0)


def answer(page: Page, side: Side) -> None:
    """Click a picture, or "No preference", which goes on."""
    page.locator(f"label[for={_INPUT[side]}]").click()
    expect_idle(page)


def take_quiz(page: Page) -> None:
    """Four answers, from the front page to the profile."""
    page.goto("/")
    for number in range(1, 5):
        expect_question(page, number)
        answer(page, "left" if number % 2 else "right")
    expect(page.locator("#profile")).to_be_visible(timeout=READING_TIMEOUT_MS)


def user_id(page: Page) -> str:
    """The user whom this browser's session owns."""
    value = page.locator('meta[name="ppd-user"]').get_attribute("content")
    assert value
    return value


def held(page: Page) -> Any:
    """What the service holds about this browser's user."""
    answer_ = page.request.get(f"/users/{user_id(page)}/preferences")
    assert answer_.ok, answer_.text()
    return answer_.json()


def ask_to_paint(page: Page, prompt: str, *, strength: float | None = None) -> None:
    """Fill in the studio's form and press the button."""
    page.locator("#prompt").fill(prompt)
    if strength is not None:
        page.locator("#strength").fill(str(strength))
    page.locator("#go").click()


def expect_painted(page: Page, prompt: str) -> None:
    """Both pictures hang, and they are of this prompt."""
    expect(page.locator("#stage-caption")).to_contain_text(prompt, timeout=PAINTING_TIMEOUT_MS)
    expect(page.locator("#go")).to_be_enabled(timeout=PAINTING_TIMEOUT_MS)
    for kind in ("mine", "base"):
        expect(page.locator(f"#image-{kind}")).to_be_visible()


def picture(page: Page, kind: Literal["mine", "base"]) -> bytes:
    """The bytes of the picture that hangs there."""
    source = page.locator(f"#image-{kind}").get_attribute("src")
    assert source
    answer_ = page.request.get(source)
    assert answer_.ok, answer_.text()
    return answer_.body()


def is_choice_post(response: Response) -> bool:
    """Whether this is the answer to a saved choice."""
    return response.request.method == "POST" and response.url.endswith("/preferences")
