"""One model and one server for all tests that need nothing special, and a browser for those of the page."""

from __future__ import annotations

import shutil

import pytest

from helpers.pages import Page
from helpers.servers import running
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.search import VideoIndex


@pytest.fixture(scope="session")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="session")
def server(model):
    with running(model) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as api:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = api.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """``open_page(…)`` opens the page; afterwards it must have loaded everything from its server, without a fault."""
    opened = []

    def open_at(address="/", of=server, **options):
        opened.append(Page(browser, of.address, **options))
        opened[-1].goto(of.address + address)
        return opened[-1]

    yield open_at
    for page in opened:
        page.close()
        assert page.faults == []
        assert page.foreign == []


@pytest.fixture(scope="module")
def guarded(model, tmp_path_factory):
    """A server with an index of the sample video, which asks for a key."""
    folder = tmp_path_factory.mktemp("guarded")
    with VideoIndex.create(folder / "index", model) as index:
        assert [added.windows for added in index.add([DEMO_VIDEO], window=1, hop=1)] == [3]
        with running(model, index=index, api_keys=("secret",)) as server:
            yield server
