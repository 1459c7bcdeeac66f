"""The whole loop with the shipped model: four choices in, a personalised picture out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from service.settings import Settings
from tests.e2e import steps
from tests.e2e.live import running

WEIGHTS = Path(__file__).parents[2] / "ppd_model" / "mini"


@pytest.fixture
def mini_url(tmp_path: Path) -> Iterator[str]:
    from service.worker.model_runtime import PpdRuntime

    chosen = Settings()
    runtime = PpdRuntime(
        "mini",
        None,
        prompt_variant=chosen.prompt_variant,
        decoding=chosen.decoding,
        threads=chosen.model_threads,
    )
    with running(runtime, tmp_path / "data") as url:
        yield url


@pytest.mark.skipif(not (WEIGHTS / "manifest.json").is_file(), reason="mini is not trained yet")
def test_four_choices_in_and_a_personalised_picture_out(browser: Browser, mini_url: str) -> None:
    context = browser.new_context(base_url=mini_url)
    page = context.new_page()
    steps.take_quiz(page)
    expect(page.locator("#profile-text")).not_to_be_empty()
    page.locator("#profile-studio").click()
    page.locator(".idea").first.click()
    prompt = page.locator("#prompt").input_value()

    steps.ask_to_paint(page, prompt)
    steps.expect_painted(page, prompt)

    expect(page.locator("#frame-mine .frame-note")).to_have_text("strength 1.00")
    assert steps.picture(page, "mine") != steps.picture(page, "base")
    context.close()
