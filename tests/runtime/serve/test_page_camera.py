"""The page's camera, in a real Chromium with a made-up one."""

from __future__ import annotations

import json
import re

LIVE = "**/v1/live"
TRY_LATER = 1013
TOO_LONG = "x" * 501


def start_camera(page):
    page.click("#camera:enabled")
    page.wait("#bars tr:nth-child(6)")


def test_windows_and_their_events_are_shown_over_time_and_copied(open_page):
    page = open_page()
    start_camera(page)
    page.wait("#events-list li")
    best = page.labels()[0]

    assert page.text("#status").startswith("Live")
    assert page.locator("#lanes svg path").count() == 4
    assert page.evaluate("[...document.querySelectorAll('.lane .name')].every((e) => e.scrollWidth <= e.clientWidth)")
    assert re.search(r"\d\d:\d\d:\d\d · \d+\.\d s( so far)? · (>\s)?\d+\.\d\s%", page.text("#events-list li"))
    assert page.locator("[role=log] #events-list").count() == 1
    assert page.hidden("#copy-curl")
    copied = json.loads(page.copied("json"))
    seen = {label["label"] for window in copied["windows"] for label in window["labels"]}
    assert {event["label"] for event in copied["events"]} <= seen
    assert best in seen

    page.click("text=Stop the camera")
    page.wait("#drop")
    assert page.hidden("#events")
    assert page.text("#status") == ""


SLOW_PROMPT = """
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.streams = [];
navigator.mediaDevices.getUserMedia = async (wanted) => {
  await new Promise((answer) => setTimeout(answer, 500));
  const stream = await ask(wanted);
  window.streams.push(stream);
  return stream;
};
0;
"""
ENDED = (
    "window.streams.length === {} && window.streams.every((s) => s.getTracks().every((t) => t.readyState === 'ended'))"
)


def test_a_camera_that_is_granted_after_another_choice_is_turned_off(open_page):
    page = open_page()
    page.evaluate(SLOW_PROMPT)
    page.click("#camera:enabled")
    page.click("#camera:enabled")
    page.wait("#bars tr")
    page.click("text=Stop the camera")
    page.wait_until(ENDED.format(2))

    page.click("#camera:enabled")
    page.click("#sample")
    page.wait("#strip li")
    page.wait_until(ENDED.format(3))
    assert page.text("#name") != "Camera"


def test_labels_change_while_it_runs_and_none_or_a_bad_one_does_not_end_it(open_page):
    page = open_page()
    start_camera(page)
    page.fill("#labels", "a cat\na dog")
    page.wait("#bars tr:nth-child(3)", "detached")
    assert sorted(page.labels()) == ["a cat", "a dog"]

    page.fill("#labels", "")
    page.wait_for_text("#hint", "The label set is empty")
    assert page.labels() == []

    page.fill("#labels", TOO_LONG)
    page.wait_for_text("#problem", "a label has 501 characters")
    assert page.labels() == []

    page.fill("#labels", "a red shape moving left")
    page.wait("#bars tr")
    assert page.hidden("#problem")
    assert page.text("#name") == "Camera"
    assert page.hidden("#bars .share")
    assert "one alone always has the whole share" in page.text("#events-note")


def test_a_lost_connection_is_said_and_made_again(open_page):
    page = open_page()
    connections = []

    def route(socket):
        connections.append(socket)
        socket.connect_to_server()

    page.route_web_socket(LIVE, route)
    start_camera(page)
    connections[0].close(code=TRY_LATER)
    page.wait_for_text("#problem", "The connection to the server is lost.")
    assert page.labels() == []
    assert page.text("#status") == "Reconnecting in 1 s…"

    page.wait("#bars tr:nth-child(6)")
    assert len(connections) == 2
    assert page.hidden("#problem")
    page.click("text=Stop the camera")
    page.wait("#drop")


def test_a_key_that_no_longer_holds_is_asked_for_again(open_page, guarded):
    page = open_page(of=guarded)
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.wait("#sample:enabled")
    page.evaluate("sessionStorage.setItem('xclip-onnx key', 'revoked')")
    page.click("#camera")
    page.wait_for_text("#key-note", "The server does not know this key.")
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.wait("#bars tr:nth-child(6)")

    assert page.hidden("#key")
    assert page.hidden("#problem")
