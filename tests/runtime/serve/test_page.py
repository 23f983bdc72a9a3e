"""The page at /, in a real Chromium; and what can be known of it without one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.search import VideoIndex
from xclip_runtime.serve.app import PAGE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 60_000
SIZES = {"wide": (1280, 900), "narrow": (360, 740)}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as api:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = api.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """``open_page(…)`` opens the page; afterwards it must have loaded everything from the server, without an error."""
    opened, requested, errors = [], [], []

    def open_at(address="/", **options):
        page = browser.new_page(**options)
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.address + address)
        opened.append(page)
        return page

    yield open_at
    for page in opened:
        page.close()
    assert errors == []
    assert all(url.startswith((server.address, "data:", "blob:")) for url in requested)


def first_bar(page):
    return page.locator("#bars li .label").first


def upload(page, path=DEMO_VIDEO):
    page.set_input_files("#file", path)
    page.locator("#strip img").first.wait_for()


def test_a_video_gives_bars_a_filmstrip_and_timings(open_page):
    page = open_page()
    upload(page)

    assert first_bar(page).inner_text() == expected_label()
    assert page.locator("#bars li").count() == 6
    assert page.locator("#strip img").count() == 16
    assert "CPUExecutionProvider fp32" in page.locator("#times").inner_text()
    assert page.locator("#problem").is_hidden()


def test_a_video_may_be_dropped_anywhere(open_page):
    page = open_page()
    page.locator("#sample").wait_for()
    transfer = page.evaluate_handle(
        """async () => {
            const transfer = new DataTransfer();
            const sample = await (await fetch("/page/sample.mp4")).blob();
            transfer.items.add(new File([sample], "dropped.mp4", { type: "video/mp4" }));
            return transfer;
        }"""
    )
    page.dispatch_event("#labels", "drop", {"dataTransfer": transfer})
    page.locator("#strip img").first.wait_for()

    assert page.locator("#name").inner_text() == "dropped.mp4"
    assert first_bar(page).inner_text() == expected_label()


def test_a_file_that_is_chosen_before_the_page_knows_its_server_is_answered_once_it_does(browser, server):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    held = []

    def hold(route):
        held.append(route)

    page.route("**/v1/info", hold)
    page.goto(server.address)
    page.set_input_files("#file", DEMO_VIDEO)
    assert page.locator("#name").inner_text() == "motion-demo.mp4"
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()

    page.locator("#strip img").first.wait_for()
    assert first_bar(page).inner_text() == expected_label()
    page.close()


def test_editing_the_labels_changes_the_scores_without_another_upload(open_page):
    page = open_page()
    upload(page)
    with page.expect_response("**/v1/classify") as answered:
        page.fill("#labels", f"a cat asleep\n{expected_label()}")
    page.locator("#bars li:nth-child(3)").wait_for(state="detached")

    assert page.locator("#bars .label").all_inner_texts() == [expected_label(), "a cat asleep"]
    assert answered.value.request.headers["content-type"] == "application/json"
    assert len(answered.value.request.post_data) < 1000

    page.click("#reset")
    page.locator("#bars li:nth-child(6)").wait_for()
    assert page.locator("#reset").is_hidden()


def test_a_bad_file_is_said_and_the_next_one_works(open_page, tmp_path):
    bad = tmp_path / "notes.mp4"
    bad.write_text("no video at all")
    page = open_page()
    page.set_input_files("#file", bad)
    page.locator("#problem").wait_for()

    assert "notes.mp4 cannot be opened as a video" in page.locator("#problem").inner_text()
    assert page.locator("#problem").get_attribute("role") == "alert"
    page.click("#another")
    upload(page)
    assert page.locator("#problem").is_hidden()
    assert first_bar(page).inner_text() == expected_label()


def test_a_camera_is_answered_live_and_can_be_given_other_labels_and_stopped(open_page):
    page = open_page()
    page.click("#camera")
    page.locator("#bars li:nth-child(6)").wait_for()
    page.fill("#labels", "a cat\na dog")
    page.locator("#bars li:nth-child(3)").wait_for(state="detached")

    assert sorted(page.locator("#bars .label").all_inner_texts()) == ["a cat", "a dog"]
    assert page.locator("#status").inner_text().startswith("Live")
    page.click("text=Stop the camera")
    page.locator("#drop").wait_for()


def test_it_can_be_used_with_the_keyboard_alone(open_page):
    page = open_page()
    page.locator("#sample").wait_for()
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    page.focus("#sample")
    page.keyboard.press("Enter")
    page.locator("#strip img").first.wait_for()

    assert reached == ["API", "file", "camera", "sample", "labels"]
    assert first_bar(page).inner_text() == expected_label()


def test_everything_that_is_used_has_a_name(open_page):
    page = open_page()
    upload(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, a")].filter((element) =>
            !(element.textContent.trim() || element.getAttribute("aria-label") || element.labels?.length)
        ).map((element) => element.outerHTML)"""
    )

    assert nameless == []
    assert page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("address", ["/", "/docs"])
def test_nothing_sticks_out_in_any_size_or_colour_scheme(open_page, size, scheme, address):
    width, height = SIZES[size]
    page = open_page(address, viewport={"width": width, "height": height}, color_scheme=scheme)
    if address == "/":
        upload(page)
    else:
        page.locator(".route").first.wait_for()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        """() => [...document.querySelectorAll(".card *")].filter((element) =>
            element.getBoundingClientRect().right > element.closest(".card").getBoundingClientRect().right
        ).map((element) => element.outerHTML)"""
    )
    assert outside == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 128) is (scheme == "dark")


def test_the_index_is_searched_if_there_is_one(browser, model, tmp_path):
    from helpers.servers import running

    with VideoIndex.create(tmp_path / "index", model) as index:
        assert [added.windows for added in index.add([DEMO_VIDEO], window=1, hop=1)] == [3]
        with running(model, index=index) as server:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.goto(server.address)
            page.fill("#query", expected_label())
            page.keyboard.press("Enter")
            page.locator("#hits img").first.wait_for()

            assert page.locator("#hits li").count() == 3
            assert page.locator("#hits img").count() == 9
            assert page.locator("#hits .name").first.inner_text() == "motion-demo.mp4"
            page.close()


def test_the_key_of_a_server_is_asked_for_once(browser, model):
    from helpers.servers import running

    with running(model, api_keys=("secret",)) as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.address)
        page.fill("#key-input", "secret")
        page.keyboard.press("Enter")
        page.locator("#sample").wait_for()
        upload(page)
        assert first_bar(page).inner_text() == expected_label()
        page.close()


def test_nothing_is_loaded_from_elsewhere():
    for path in PAGE.iterdir():
        links = re.findall(r"(?:src|href|url|from|import|fetch)\W{1,3}(?:https?:)?//", path.read_text())
        assert links == [], path.name


def luminance(colour):
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *(("text", "page"), ("text", "card"), ("soft", "page"), ("soft", "card"), ("accent", "page")),
        *(("accent", "accent-soft"), ("on-accent", "accent"), ("bad", "bad-soft")),
    ],
)
def test_text_can_be_read_on_its_ground(scheme, text, ground):
    block = re.findall(r":root \{(.*?)\}", Path(PAGE / "style.css").read_text(), flags=re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", block))
    dark, light = sorted((luminance(colours[text]), luminance(colours[ground])))

    # WCAG 2.2, success criterion 1.4.3.
    assert (light + 0.05) / (dark + 0.05) >= 4.5
