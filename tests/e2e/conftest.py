"""A service, a browser and a page; every complaint of the browser fails its test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import chromium
from tests.e2e.live import running
from tests.fake_runtime import FakeRuntime

TIMEOUT_MS = 20_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def shared_runtime() -> FakeRuntime:
    return FakeRuntime(step_s=0.01)


@pytest.fixture(scope="session")
def service_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e-data")


@pytest.fixture(scope="session")
def service_url(shared_runtime: FakeRuntime, service_data_dir: Path) -> Iterator[str]:
    """One service for all tests; every test is a new visitor."""
    with running(shared_runtime, service_data_dir) as url:
        yield url


@pytest.fixture
def runtime(shared_runtime: FakeRuntime) -> Iterator[FakeRuntime]:
    """The model behind the service; whatever a test did to it is undone."""
    yield shared_runtime
    shared_runtime.fail_with = None
    shared_runtime.preview_every, shared_runtime.step_s = 0, 0.01
    shared_runtime.gate.set()


@pytest.fixture
def noise() -> list[str]:
    """Errors on the browser's console; a test that provokes some looks at them and clears them."""
    return []


@pytest.fixture
def page(
    browser: Browser, service_url: str, runtime: FakeRuntime, noise: list[str]
) -> Iterator[Page]:
    """A new visitor; errors on the console and in scripts fail the test."""
    context = browser.new_context(base_url=service_url, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: noise.append(f"script: {error}"))
    page.on("console", lambda line: noise.append(line.text) if line.type == "error" else None)
    yield page
    context.close()
    assert noise == []
