"""The page at /, in a real Chromium."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from helpers.bundles import copy_bundle, edit_manifest
from helpers.servers import eventually, metric, running
from helpers.video_files import encode
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.serve.app import PAGE
from xclip_runtime.serve.served_model import Opened

CLASSIFY = "POST /v1/classify"
CLASSIFY_URL = "**/v1/classify"
TOO_LONG = "x" * 501


# A video


def test_the_sample_is_one_press_away_and_labels_come_first(open_page, tmp_path):
    page = open_page()
    page.click("#sample:enabled")
    page.wait("#strip img")

    assert page.labels()[0] == expected_label()
    assert len(page.labels()) == 6
    assert page.locator("#strip img").count() == 16
    assert page.text("#checkpoint") == "motion-demo"
    assert page.hidden("#model-choice")
    assert page.hidden("#problem")
    # The engine's name is the last of the answer, and folded away.
    assert page.hidden("#engine")
    page.click("#timings summary")
    assert page.text("#engine") == "fp32 on CPUExecutionProvider"
    assert page.text(".answer").rstrip().endswith("CPUExecutionProvider")

    # Its curl needs no file.
    done = subprocess.run(["bash", "-c", page.copied("curl")], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["labels"][0]["label"] == expected_label()


def test_a_video_may_be_dropped_anywhere(open_page):
    page = open_page()
    page.wait("#sample:enabled")
    transfer = page.evaluate_handle(
        """async () => {
            const transfer = new DataTransfer();
            const sample = await (await fetch("/page/sample.mp4")).blob();
            transfer.items.add(new File([sample], "dropped.mp4", { type: "video/mp4" }));
            return transfer;
        }"""
    )
    page.dispatch_event("#labels", "drop", {"dataTransfer": transfer})
    page.wait("#strip img")

    assert page.text("#name") == "dropped.mp4"
    assert page.labels()[0] == expected_label()


def test_a_file_that_is_chosen_before_the_page_knows_its_server_is_answered_once_it_does(open_page):
    page = open_page("/docs")
    held = []
    page.route("**/v1/info", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks its handlers
    with page.expect_request("**/v1/info"):
        page.goto(page.url.replace("/docs", "/"))
    page.set_input_files("#file", DEMO_VIDEO)
    assert page.text("#name") == "motion-demo.mp4"
    assert CLASSIFY not in page.requests
    held[0].continue_()

    page.wait("#strip img")
    assert page.labels()[0] == expected_label()


def test_part_of_a_video_and_its_views_are_chosen_on_a_timeline(open_page):
    page = open_page()
    page.upload()
    assert page.text("#range-text") == "Whole video, 3.0 s"
    assert page.text("#marks-note") == "32 frames sampled"
    assert page.hidden("#whole")

    page.fill("#from", "1")
    page.fill("#to", "2.5")
    page.select_option("#views", "4x1")
    page.wait_for_text("#marks-note", "at 4 positions")
    page.wait_for_text("#film-note", "of 38 in this part")
    indices = json.loads(page.copied("json"))["frames"]["indices"]
    marks = [float(x) for x in re.findall(r"M([\d.]+)", page.locator("#marks path").get_attribute("d"))]

    assert len(indices) == 4 * 32
    assert (min(indices), max(indices)) == (25, 62)
    assert re.findall(r"'((?:start|end|views)=.*)'", page.copied("curl")) == ["start=1", "end=2.5", "views=4x1"]
    assert page.text("#range-text") == "1.0 s to 2.5 s"
    assert page.get_attribute("#from", "aria-valuetext") == "1.0 s"
    assert len(marks) == 4 * 32
    assert 333 <= min(marks) < 350
    assert 800 < max(marks) <= 834

    page.click("#whole")
    page.wait_for_text("#film-note", "of 75 in the video")
    assert page.hidden("#whole")


def test_an_upload_shows_its_progress_and_stops_on_the_server_too_when_it_is_cancelled(open_page, server, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(DEMO_VIDEO.read_bytes() + bytes(6 << 20))
    cancelled = metric(server, "xclip_requests_total", endpoint="/v1/classify", outcome="cancelled")
    page = open_page()
    page.wait("#sample:enabled")
    network = page.context.new_cdp_session(page._page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1 << 20}
    network.send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#file", large)
    page.wait_until("document.getElementById('sent').value > 0.05")

    assert re.fullmatch(r"Uploading \d+\.\d\s% of 6 MB", page.text("#sent-note"))
    page.click("#cancel")
    eventually(lambda: server.engine.in_flight == 0)
    now = metric(server, "xclip_requests_total", endpoint="/v1/classify", outcome="cancelled")
    assert now == cancelled + 1
    assert page.hidden("#progress")

    network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    page.click("text=Try again")
    page.wait("#strip img")
    assert page.labels()[0] == expected_label()


# Problems


def test_a_file_that_the_server_refuses_is_not_blamed_on_the_browser_and_the_next_one_works(open_page, tmp_path):
    bad = tmp_path / "notes.mp4"
    bad.write_text("no video at all")
    page = open_page()
    page.set_input_files("#file", bad)
    page.wait("#problem")

    assert "notes.mp4 cannot be opened as a video" in page.text("#problem")
    assert page.get_attribute("#problem", "role") == "alert"
    assert page.text("#unplayable") == "No preview."
    page.click("#another")
    page.upload()
    assert page.hidden("#problem")
    assert page.labels()[0] == expected_label()


def test_a_file_that_only_the_server_can_read_is_answered_and_said_to_be_unplayable(open_page, tmp_path):
    page = open_page()
    page.upload(encode(tmp_path / "old.avi", "mpeg4"))

    assert page.text("#unplayable") == "The server reads this file, but the browser cannot play it."
    assert len(page.labels()) == 6


def test_a_failure_leaves_no_old_answer_and_keeps_the_frames(open_page):
    page = open_page()
    page.upload()
    error = json.dumps({"error": {"message": "out of order"}})
    answers = {
        "No response from the server: is it still running?": lambda route: route.abort(),
        "out of order": lambda route: route.fulfill(status=500, body=error),
        "The server responded with status 502.": lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"),
    }
    for number, (message, answer) in enumerate(answers.items()):
        page.copied("json")
        page.route(CLASSIFY_URL, answer)
        page.fill("#labels", f"a cat\n{number}")
        page.wait_for_text("#problem", message)
        assert page.labels() == []
        assert page.hidden("#code")
        assert page.hidden("#timings")
        assert page.locator("#strip img").count() == 16

        page.unroute(CLASSIFY_URL)
        page.click("text=Try again")
        page.wait("#bars tr")
        assert sorted(page.labels()) == [str(number), "a cat"]
        assert page.hidden("#problem")


def test_a_busy_server_is_asked_again_when_it_says(open_page):
    page = open_page()
    page.wait("#sample:enabled")
    refusals = [{"status": 503, "headers": {"Retry-After": "1"}, "body": "{}"}]
    page.route("**/v1/classify", lambda r: r.fulfill(**refusals.pop()) if refusals else r.continue_())
    page.set_input_files("#file", DEMO_VIDEO)
    page.wait_for_text("#status", "The server is busy: trying again in 1 s…")
    page.wait("#strip img")

    assert page.labels()[0] == expected_label()
    assert page.text("#status") == ""


# Labels


def test_editing_the_labels_changes_the_scores_without_another_upload(open_page):
    page = open_page()
    page.upload()
    with page.expect_response("**/v1/classify") as answered:
        page.fill("#labels", f"a cat asleep\n{expected_label()}\na cat asleep")
    page.wait("#bars tr:nth-child(3)", "detached")

    assert page.labels() == [expected_label(), "a cat asleep"]
    assert answered.value.request.headers["content-type"] == "application/json"
    assert len(answered.value.request.post_data) < 1000

    page.click("#reset")
    page.wait("#bars tr:nth-child(6)")
    assert page.hidden("#reset")


def test_one_bad_label_costs_its_answer_only(open_page):
    page = open_page()
    page.upload()
    page.fill("#labels", f"a cat\n{TOO_LONG}")
    page.wait_for_text("#problem", "a label has 501 characters")
    assert page.hidden("#problem button")
    assert page.labels() == []
    page.fill("#labels", "a cat\na dog")
    page.wait("#bars tr")

    assert sorted(page.labels()) == ["a cat", "a dog"]
    assert page.locator("#strip img").count() == 16
    assert not page.hidden("#film")
    assert page.requests.count(CLASSIFY) == 3


def test_an_empty_label_set_is_said_and_scores_nothing(open_page):
    page = open_page()
    page.wait("#sample:enabled")
    page.fill("#labels", " \n")
    page.set_input_files("#file", DEMO_VIDEO)
    page.wait_for_text("#hint", "The label set is empty")
    assert CLASSIFY not in page.requests
    page.fill("#labels", "a cat\na dog")
    page.wait("#bars tr")
    page.fill("#labels", "")
    page.wait_for_text("#hint", "The label set is empty")

    assert page.labels() == []
    assert page.requests.count(CLASSIFY) == 1
    assert page.get_attribute("#labels", "aria-invalid") == "true"


def test_shares_are_said_to_be_relative_and_a_label_alone_has_its_score_only(open_page, model):
    page = open_page()
    page.upload()
    logit = model.score(DEMO_VIDEO, [expected_label()]).texts[0].cosine
    assert page.text("thead .share") == "Share of this list"
    assert "relative to this list" in page.text("#score-note")
    page.fill("#labels", expected_label())
    page.wait("#bars tr:nth-child(2)", "detached")

    assert float(page.text("#bars .score")) == pytest.approx(logit, abs=6e-4)
    assert page.hidden("#bars .share")
    assert "99.9" not in page.text(".answer")
    assert "A label alone has no share" in page.text("#score-note")


# Copies


def test_the_copied_curl_and_python_and_json_are_the_answer(open_page, guarded, tmp_path):
    name = """it's; "a"\\video.mp4"""
    odd = ["@home's", "<b>;type=x", 'a "red" $HOME shape', expected_label()]
    (tmp_path / name).write_bytes(DEMO_VIDEO.read_bytes())
    page = open_page(of=guarded)
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.wait("#sample:enabled")
    page.upload(tmp_path / name)
    page.fill("#labels", "\n".join(odd))
    page.wait("#bars tr:nth-child(5)", "detached")
    curl, python, document = (page.copied(kind) for kind in ("curl", "python", "json"))
    answer = json.loads(document)
    best = [label["label"] for label in answer["labels"]]

    def run(*command):
        environment = {**os.environ, "XCLIP_ONNX_API_KEY": "secret"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert "secret" not in curl + python
    assert [label["label"] for label in json.loads(run("bash", "-c", curl))["labels"]] == best
    assert [line.split("%  ")[1] for line in run(sys.executable, "-c", python).splitlines()] == best
    assert sorted(best) == sorted(odd)
    assert best[0] == page.labels()[0] == expected_label()


# Keys, search, models


def test_a_missing_and_a_wrong_key_are_told_apart_and_the_right_one_is_asked_for_once(open_page, guarded):
    page = open_page(of=guarded)
    page.wait_for_text("#key-note", "This server needs an API key.")
    assert page.get_attribute("#key-input", "aria-invalid") is None
    page.fill("#key-input", "guessed")
    page.keyboard.press("Enter")
    page.wait_for_text("#key-note", "The server does not know this key.")
    assert page.get_attribute("#key-input", "aria-invalid") == "true"

    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.wait("#sample:enabled")
    page.upload()
    page.fill("#query", "a shape")
    page.keyboard.press("Enter")
    page.wait("#hits li")
    assert page.hidden("#key")
    assert page.labels()[0] == expected_label()


def test_hits_are_named_buttons_that_play_at_their_time(open_page, guarded):
    page = open_page(of=guarded)
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.fill("#query", expected_label())
    page.keyboard.press("Enter")
    page.wait("#hits img")
    hit = page.get_by_role("button", name="Play motion-demo.mp4 from 1.0 s to 2.0 s")
    assert page.locator("#hits .hit").count() == 3
    assert page.locator("#hits img").count() == 9
    hit.click()
    page.wait_until("document.getElementById('hit-video').currentTime >= 1")

    assert hit.get_attribute("aria-current") == "true"
    assert page.text("#hit-name") == "motion-demo.mp4, 1.0 s to 2.0 s"
    assert page.hidden("#hit-unplayable")

    page.route("**/v1/search*", lambda route: route.abort())
    page.fill("#query", "a cat")
    page.keyboard.press("Enter")
    page.wait("#search-problem")
    assert page.locator("#hits .hit").count() == 0
    assert page.hidden("#hit-player")


def test_a_server_with_several_models_offers_them(open_page, model, tmp_path):
    edit_manifest(copy_bundle(tmp_path / "folder"), source={"checkpoint": "someone/sports"})
    openers = {"shapes": lambda: Opened(model), "sports": lambda: Opened(XClip(tmp_path / "folder", device="cpu"))}
    with running(openers) as server:
        page = open_page(of=server)
        page.upload()
        assert page.text("#checkpoint") == "motion-demo"
        page.select_option("#model", "sports")
        page.wait_for_text("#checkpoint", "someone/sports")
        page.wait_until("document.querySelectorAll('#bars tr').length == 6 && !document.querySelector('[aria-busy]')")

        assert page.labels()[0] == expected_label()
        assert "--form-string 'model=sports'" in page.copied("curl")
        page.fill("#labels", "a cat\na dog")
        page.wait("#bars tr:nth-child(3)", "detached")
        assert sorted(page.labels()) == ["a cat", "a dog"]


def test_nothing_is_loaded_from_elsewhere_or_from_the_root():
    for path in PAGE.iterdir():
        links = re.findall(r"(?:src|href|url|from|import|fetch)[^\w./<]{1,3}(?:https?:)?/", path.read_text())
        assert links == [], path.name
