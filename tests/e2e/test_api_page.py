"""The block of `docs/api.md` that is for the service's own pages, as it stands."""

from playwright.sync_api import Page

from tests.api_page import blocks_of


def test_an_event_source_follows_a_job_and_is_closed_after_its_end(page: Page) -> None:
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text))
    page.goto("/studio")
    page.evaluate(f"async () => {{ {blocks_of('js browser')} }}")
    assert said[-1] == "closed"
    assert said.count("succeeded") == 1, "the end is told once"
    assert "step 20" in said
