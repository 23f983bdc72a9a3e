"""/v1 answers as the library does."""

from __future__ import annotations

import base64
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from helpers.servers import eventually, in_background
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.video import Views
from xclip_runtime.video.load import Reading

VIDEO = DEMO_VIDEO.read_bytes()


def form(name="ride.mp4", content=VIDEO):
    return {"video": (name, content, "video/mp4")}


def problem(reply):
    error = reply.json()["error"]
    assert set(error) == {"type", "message", "request_id"}
    assert error["request_id"] == reply.headers["x-request-id"]
    assert "Traceback" not in reply.text
    assert "/tmp" not in error["message"]
    return reply.status_code, error["type"], error["message"]


def test_a_bare_video_is_classified_as_the_library_does(server, model):
    answer = server.client.post("/v1/classify?top_k=3", content=VIDEO).json()
    here = model.classify(DEMO_VIDEO, top_k=3).to_dict()

    assert answer["labels"][0]["label"] == expected_label()
    assert [s["label"] for s in answer["labels"]] == [s["label"] for s in here["labels"]]
    assert [s["logit"] for s in answer["labels"]] == pytest.approx([s["logit"] for s in here["labels"]], abs=1e-4)
    assert answer["frames"] == {**here["frames"], "indices": list(here["frames"]["indices"]), "notes": []}
    assert (answer["provider"], answer["precision"]) == ("CPUExecutionProvider", "fp32")
    timings = answer["timings_ms"]
    assert set(timings) == {"upload", "queue", "decode", "prepare", "vision", "prompt", "total"}
    assert all(ms >= 0 for ms in timings.values())
    assert timings["total"] >= timings["decode"] + timings["vision"]


def test_a_form_is_classified_too_and_its_file_keeps_its_name(server):
    bare = server.client.post("/v1/classify", content=VIDEO).json()
    answer = server.client.post("/v1/classify", files=form("../../etc/my\x9fride.mp4"), data={"top_k": "2"}).json()

    assert answer["labels"] == bare["labels"][:2]
    assert answer["video"] == "myride.mp4"


def test_part_of_a_video_and_views_are_those_of_the_library(server, model):
    options = {"start": 1, "end": 2.5, "views": "2x3"}
    answer = server.client.post("/v1/classify", params=options, content=VIDEO).json()
    here = model.classify(DEMO_VIDEO, reading=Reading(Views(2, 3), start=1, end=2.5))

    assert answer["frames"]["indices"] == list(here.frames.indices)
    assert answer["labels"][0]["prob"] == pytest.approx(here.top.prob, abs=1e-5)


def test_a_track_is_chosen_by_its_number(server, model, tmp_path):
    two = tmp_path / "two.mkv"
    with av.open(str(DEMO_VIDEO)) as source, av.open(str(two), "w") as target:
        pictures = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
        tracks = [target.add_stream("libx264", rate=25) for _ in range(2)]
        for track in tracks:
            track.height, track.width = pictures[0].shape[:2]
        for number, picture in enumerate(pictures):
            for track, shown in zip(tracks, (picture, picture[::-1, ::-1].copy()), strict=True):
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                frame.pts = number
                target.mux(track.encode(frame))
        for track in tracks:
            target.mux(track.encode(None))
    content = two.read_bytes()
    answers = [server.client.post("/v1/embed", params={"track": n}, content=content).json() for n in (0, 1)]
    form_answer = server.client.post("/v1/embed", files=form(content=content), data={"track": "1"}).json()
    missing = server.client.post("/v1/embed", params={"track": 2}, content=content)

    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer["embedding"], model.embed(two, reading=Reading(track=number)), atol=1e-5)
    assert form_answer["embedding"] == answers[1]["embedding"] != answers[0]["embedding"]
    assert problem(missing)[0] == 422
    assert "2 video tracks, and none of number 2" in missing.text


def test_the_bundles_own_labels_can_be_chosen_among(server, model):
    chosen = [model.labels[7], expected_label()]
    answer = server.client.post("/v1/classify", files=form(), data={"labels": chosen}).json()
    everything = {s.label: s.logit for s in model.classify(DEMO_VIDEO, top_k=None).labels}

    assert {s["label"]: s["logit"] for s in answer["labels"]} == pytest.approx(
        {label: everything[label] for label in chosen}, abs=1e-4
    )
    assert sum(s["prob"] for s in answer["labels"]) == pytest.approx(1)


def test_any_words_are_labels_one_a_line(server, model):
    answer = server.client.post("/v1/classify", files=form(), data={"texts": "a cat\n\n an orange shape circling \n"})
    here = model.with_labels(["a cat", "an orange shape circling"]).classify(DEMO_VIDEO)

    assert [s["label"] for s in answer.json()["labels"]] == [s.label for s in here.labels]
    assert [s["logit"] for s in answer.json()["labels"]] == pytest.approx([s.logit for s in here.labels], abs=1e-4)


def test_texts_are_scored_as_the_library_scores_them(server, model):
    texts = ["a cat", "an orange shape circling"]
    answer = server.client.post("/v1/score", params={"texts": texts}, content=VIDEO).json()
    here = model.score(DEMO_VIDEO, texts)

    for field, tolerance in (("prob", 1e-5), ("logit", 1e-4), ("cosine", 1e-5)):
        assert [s[field] for s in answer["texts"]] == pytest.approx(
            [getattr(s, field) for s in here.texts], abs=tolerance
        )


def test_scores_come_in_the_order_of_the_texts(server):
    texts = ["a cat", "an orange shape circling", "a cat"]
    scores = server.client.post("/v1/score", params={"texts": texts}, content=VIDEO).json()["texts"]

    assert [s["text"] for s in scores] == texts
    assert scores[0] == scores[2]
    assert scores[1]["logit"] > scores[0]["logit"]


def test_an_embedding_is_that_of_the_library(server, model):
    embedding = server.client.post("/v1/embed", content=VIDEO).json()["embedding"]

    np.testing.assert_allclose(embedding, model.embed(DEMO_VIDEO), atol=1e-5)


def test_a_kept_clip_answers_again_without_its_video(server):
    first = server.client.post("/v1/classify?keep=true", content=VIDEO).json()
    again = server.client.post("/v1/classify", json={"token": first["token"]}).json()
    scored = server.client.post("/v1/score", json={"token": first["token"], "texts": ["a cat"]}).json()

    assert again["labels"] == first["labels"]
    assert again["token"] == first["token"]
    assert (again["timings_ms"]["decode"], again["timings_ms"]["vision"]) == (0, 0)
    assert scored["texts"][0]["prob"] == 1


def test_only_so_many_clips_are_kept_and_none_is_guessed(server):
    tokens = [server.client.post("/v1/embed?keep=true", content=VIDEO).json()["token"] for _ in range(2)]
    seen = server.served.kept(tokens[1])
    for _ in range(server.engine.settings.limits.kept_videos - 1):
        server.served.keep(seen)

    assert server.client.post("/v1/embed", json={"token": tokens[1]}).status_code == 200
    assert problem(server.client.post("/v1/embed", json={"token": tokens[0]}))[0] == 404
    assert problem(server.client.post("/v1/embed", json={"token": ""}))[0] == 404


def test_thumbnails_are_the_sampled_frames(server):
    answer = server.client.post("/v1/classify?thumbnails=4", content=VIDEO).json()
    urls = [thumbnail["image"] for thumbnail in answer["thumbnails"]]
    encoded = [np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8) for url in urls]
    images = [cv2.imdecode(jpeg, cv2.IMREAD_COLOR) for jpeg in encoded]

    assert [thumbnail["index"] for thumbnail in answer["thumbnails"]] == [1, 24, 50, 73]
    assert [p.shape for p in images] == [(224, 224, 3)] * 4
    assert any((a != b).any() for a, b in pairwise(images))


def test_a_client_can_ask_what_is_served(server, model):
    info = server.client.get("/v1/info").json()

    assert info["bundle"] == info["checkpoint"] == "motion-demo"
    assert info["logit_scale"] == pytest.approx(model.bundle.logit_scale)
    assert info["max_views"] == 12
    assert info["labels"] == list(model.labels)
    assert info["free_text"] is True
    assert (info["provider"], info["num_frames"]) == ("CPUExecutionProvider", 32)
    assert server.client.get(info["sample"]).content == VIDEO


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no video at all", "cannot be opened as a video"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
            "cannot be opened as a video",
        ),
        (VIDEO[:3000], "cannot be opened as a video"),
        (b"", "no video: send one"),
    ],
    ids=["text", "playlist", "half", "nothing"],
)
@pytest.mark.parametrize("endpoint", ["classify", "embed", "score"])
def test_what_is_no_video_is_refused_in_one_line(server, endpoint, content, message):
    status, _, said = problem(server.client.post(f"/v1/{endpoint}", content=content))

    assert status == 422
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k"),
        ({"start": -1}, "start"),
        ({"start": 2, "end": 1}, "end must be greater than start"),
        ({"views": "9"}, "views"),
        ({"views": "13x1"}, "13 views exceed the limit"),
        ({"thumbnails": 1000}, "thumbnails"),
        ({"topk": 3}, "topk"),
        ({"labels": "x" * 501}, "501 characters"),
        ({"texts": ["x"] * 1001}, "1001 labels exceed the limit"),
        ({"texts": "word " * 100}, "tokens"),
        ({"start": 100}, "has no frame from 100 s"),
    ],
)
@pytest.mark.parametrize("how", ["form", "address"])
def test_options_that_make_no_sense_are_refused(server, options, message, how):
    if how == "form":
        reply = server.client.post("/v1/classify", files=form(), data=options)
    else:
        reply = server.client.post("/v1/classify", params=options, content=VIDEO)
    status, _, said = problem(reply)

    assert status == 422
    assert message in said


NUMBERS = ["nan", "inf", "-inf", "-1", "1e999", "1" * 400, "", "x"]


@pytest.mark.parametrize("option", ["start", "end", "track", "thumbnails", "top_k", "views", "keep"])
@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_is_too_odd_for_a_client_error(server, option, number):
    answers = [
        server.client.post("/v1/classify", params={option: number}, content=b"no video"),
        server.client.post("/v1/classify", json={option: number}),
    ]

    assert {problem(answer)[0] for answer in answers} == {422}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1", "true", "[]", "{}", '"\\ud800"'])
@pytest.mark.parametrize(
    "option", ["start", "end", "thumbnails", "top_k", "texts", "labels", "views", "token", "model", "\\ud800"]
)
def test_no_json_value_is_too_odd_for_a_client_error(server, option, number):
    body = f'{{"{option}": {number}}}'
    answer = server.client.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})

    assert problem(answer)[0] in (400, 404, 422)


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "-inf", "1e999", "soon", ""])
@pytest.mark.parametrize("path", ["/v1/classify", "/v2/models/xclip/infer"])
def test_a_timeout_that_is_no_time_is_refused(server, path, seconds):
    answer = server.client.post(path, content=VIDEO, headers={"X-Request-Timeout": seconds})

    assert answer.status_code == 400
    assert "X-Request-Timeout" in answer.text


TEXTS = [f"a text of its own {i}" for i in range(60)]


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"texts": TEXTS}},
        {"json": {"texts": TEXTS, "token": "gone"}},
        {"params": {"texts": TEXTS}, "content": b""},
        {"params": {"texts": TEXTS}, "content": b"no video"},
        {"data": {"texts": TEXTS}, "files": {"nothing": (None, "x")}},
        {"params": {"texts": TEXTS, "thumbnails": 65}, "content": VIDEO},
    ],
    ids=["no video", "gone", "nothing", "text", "form", "thumbnails"],
)
@pytest.mark.parametrize("endpoint", ["classify", "score"])
def test_no_text_is_encoded_for_a_request_that_is_refused(server, model, monkeypatch, endpoint, request_):
    monkeypatch.setattr(model, "text_embeds", None)

    assert problem(server.client.post(f"/v1/{endpoint}", **request_))[0] in (404, 422)


def test_a_request_without_texts_waits_for_none(server):
    with server.served.texts._lock:
        waiting = [
            in_background(lambda: server.client.post("/v1/score", params={"texts": TEXTS}, content=VIDEO))
            for _ in range(9)
        ]
        eventually(lambda: server.engine.in_flight == len(waiting))
        assert server.classify(DEMO_VIDEO).status_code == 200
    assert {answer().status_code for answer in waiting} == {200}


def test_a_text_that_is_too_long_is_told_before_the_video_is_read(server, model, monkeypatch):
    monkeypatch.setattr(model, "text_embeds", None)
    answer = server.client.post("/v1/score", files=form(content=b"no video"), data={"texts": ["a cat", "word " * 100]})

    assert problem(answer)[0] == 422
    assert "tokens" in answer.text


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000])
def test_json_that_is_no_object_is_refused(server, body):
    reply = server.client.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})

    assert problem(reply)[0] == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("top_k=1&top_k=2", 422),
        ("texts=%ED%A0%80", 400),
        ("texts=%FF", 400),
        ("%FF=1", 400),
        ("texts=", 422),
        ("texts=%20%0A", 422),
        ("labels=&labels=", 422),
        ("texts=a&texts=b", 200),
    ],
)
def test_a_query_says_one_thing_or_is_refused(server, query, status):
    assert server.client.post(f"/v1/classify?{query}", content=VIDEO).status_code == status


def test_a_form_that_is_broken_is_refused(server):
    reply = server.client.post(
        "/v1/classify", content=b"--x\r\nnonsense", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )

    assert problem(reply)[0] in (400, 422)


def test_paths_and_methods_that_do_not_exist_are_refused_in_the_same_way(server):
    assert problem(server.client.get("/v1/nothing"))[0] == 404
    assert problem(server.client.get("/v1/classify"))[0] == 405


def test_the_documentation_names_every_route(server):
    paths = server.client.get("/openapi.json").json()["paths"]

    assert {"/v1/classify", "/v1/embed", "/v1/score", "/v1/info", "/metrics", "/v2/health/ready"} <= set(paths)
    assert "multipart/form-data" in paths["/v1/classify"]["post"]["requestBody"]["content"]


def test_the_former_name_of_token_is_accepted_but_not_both(server):
    token = server.client.post("/v1/embed?keep=true", content=VIDEO).json()["token"]

    assert server.client.post("/v1/embed", json={"clip": token}).json()["token"] == token
    assert server.client.post("/v1/embed", json={"clip": token, "token": token}).status_code == 422
