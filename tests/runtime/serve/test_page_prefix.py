"""The page below a path of a reverse proxy: all that it loads, asks, plays and opens stays below that path."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from helpers.proxies import stripping_proxy
from helpers.servers import running
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.search import VideoIndex


@pytest.fixture(scope="module")
def below(model, tmp_path_factory):
    """Address of a server, with an index, below a path of a proxy."""
    folder = tmp_path_factory.mktemp("prefix") / "index"
    with VideoIndex.create(folder, model) as index:
        assert list(index.add([DEMO_VIDEO], window=1, hop=1))
        with (
            running(model, index=index, root_path="/films/x") as server,
            stripping_proxy(server.address, "/films/x") as address,
        ):
            yield SimpleNamespace(address=address)


@pytest.fixture
def page(open_page, below):
    """The page, whose server must find everything that is asked for."""
    page, missing = open_page(of=below), []
    page.on("response", lambda response: missing.append(response.url) if response.status >= 400 else None)
    yield page
    assert missing == []
    # Without the address of the prefix, which a request outside it would still have.
    assert all(request.split()[1].startswith("/v1/") for request in page.requests)


def test_a_video_is_classified_and_what_is_copied_names_the_path(page, below):
    page.click("#sample:enabled")
    page.wait("#strip img")

    assert page.labels()[0] == expected_label()
    assert f"{below.address}/v1/classify" in page.copied("curl")


def test_a_hit_plays(page):
    page.fill("#query", expected_label())
    page.keyboard.press("Enter")
    page.wait("#hits img")
    page.get_by_role("button", name="Play motion-demo.mp4 from 1.0 s to 2.0 s").click()

    page.wait_until("document.getElementById('hit-video').currentTime >= 1")


def test_a_camera_is_classified(page):
    page.click("#camera:enabled")
    page.wait("#bars tr")

    assert page.text("#status").startswith("Live")


def test_the_documentation_of_the_api_is_there(page, below):
    page.click("text=API")
    page.wait(".route")

    assert page.url == f"{below.address}/docs"
