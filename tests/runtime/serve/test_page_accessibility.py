"""The pages at / and /docs can be used by everyone: with the keyboard, by touch, in any size and colours."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from xclip_runtime.demo import expected_label

SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 360, "height": 740}}
COLOURS = {
    "light": {"color_scheme": "light", "forced_colors": "none"},
    "dark": {"color_scheme": "dark", "forced_colors": "none"},
    "forced": {"color_scheme": "light", "forced_colors": "active"},
}
FEW = [("wide", "light"), ("narrow", "dark")]
MANY = [*FEW, ("wide", "forced"), ("narrow", "forced")]
TOUCH = 44
TOO_SMALL = f"""() => [...document.querySelectorAll("a, button, select, summary, input, textarea")]
    .map((element) => element.labels?.[0]?.contains(element) ? element.labels[0] : element)
    .filter((element) => element.checkVisibility())
    .filter((element) => {{
        const {{ width, height }} = element.getBoundingClientRect();
        return width < {TOUCH} || height < {TOUCH};
    }}).map((element) => element.outerHTML)"""
OUTSIDE = """() => [...document.querySelectorAll(".card *:not(pre, [type=range])")].filter((element) =>
    element.checkVisibility() && !element.closest("svg") &&
    element.getBoundingClientRect().right > element.closest(".card").getBoundingClientRect().right + 0.5
).map((element) => element.outerHTML)"""


@pytest.fixture(scope="module")
def axe():
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    return (resources.files(axe) / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def check(axe):
    """``check(page)`` looks for violations in both sizes, and in some or all colours."""

    def violations(page):
        found = page.evaluate("axe.run()")["violations"]
        return [(v["id"], [node["html"] for node in v["nodes"]]) for v in found]

    def check(page, combinations=FEW):
        page.evaluate(axe)
        for size, colours in combinations:
            page.set_viewport_size(SIZES[size])
            page.emulate_media(**COLOURS[colours])
            assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
            assert page.evaluate(OUTSIDE) == []
            assert page.evaluate(TOO_SMALL) == []
            assert violations(page) == [], (size, colours)

    return check


def unlock(page):
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.wait("#sample:enabled")


def test_the_page_as_it_begins_and_as_it_asks_for_a_key(open_page, guarded, check):
    page = open_page(of=guarded)
    page.wait("#key")
    check(page)
    unlock(page)
    check(page)


def test_an_answer_with_all_that_can_be_opened(open_page, guarded, check):
    page = open_page(of=guarded)
    unlock(page)
    page.upload()
    page.click("#timings summary")
    page.fill("#from", "0.5")
    page.fill("#query", expected_label())
    page.press("#query", "Enter")
    page.wait("#hits img")
    page.click(".hit >> nth=0")
    page.wait_for_text("#film-note", "in this part")
    page.fill("#labels", "a cat\na dog")
    page.wait("#bars tr:nth-child(3)", "detached")
    page.copied("curl")
    check(page, MANY)


def test_a_problem(open_page, check, tmp_path):
    page = open_page()
    page.upload()
    page.route("**/v1/classify", lambda route: route.abort())
    page.fill("#labels", "a cat")
    page.wait("#problem")
    check(page)


def test_a_camera(open_page, check):
    page = open_page()
    page.click("#camera:enabled")
    page.wait("#events-list li")
    check(page)


def test_the_documentation(open_page, check):
    page = open_page("/docs")
    page.wait(".route")
    check(page)


def test_forced_colours_keep_the_bars(open_page):
    page = open_page(forced_colors="active")
    page.upload()
    bar, ground, page_ground = (
        page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).backgroundColor")
        for selector in ("#bars .bar i", "#bars .bar", "body")
    )

    assert bar not in (ground, page_ground)
    assert page.evaluate("getComputedStyle(document.querySelector('#bars .bar')).borderTopWidth") == "1px"


def test_forced_colours_keep_the_frame_of_an_error(open_page, tmp_path):
    page = open_page(forced_colors="active")
    page.wait("#sample:enabled")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    page.set_input_files("#file", tmp_path / "bad.mp4")
    page.wait("#problem")

    assert page.evaluate("getComputedStyle(document.getElementById('problem')).borderTopWidth") == "2px"


def test_it_can_be_used_with_the_keyboard_alone(open_page):
    page = open_page()
    page.wait("#sample:enabled")
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    page.focus("#sample")
    page.keyboard.press("Enter")
    page.wait("#strip img")

    assert reached == ["API", "file", "sample", "camera", "labels"]
    page.focus("#from")
    page.keyboard.press("ArrowRight")
    page.wait_for_text("#film-note", "in this part")
    assert page.text("#range-text") == "0.1 s to 3.0 s"
    assert page.labels()[0] == expected_label()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colour_scheme(open_page, scheme):
    background = open_page(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")

    assert (max(map(int, re.findall(r"\d+", background))) < 128) is (scheme == "dark")
