"""/v1/search answers as the index does."""

from __future__ import annotations

import shutil

import pytest

from helpers.servers import running
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.search import VideoIndex
from xclip_runtime.serve.settings import Limits


@pytest.fixture(scope="module")
def indexed(model, tmp_path_factory):
    """A server with an index of one video, and the video."""
    folder = tmp_path_factory.mktemp("index")
    video = shutil.copy(DEMO_VIDEO, folder / "ride.mp4")
    with VideoIndex.create(folder / "index", model) as index:
        assert [added.windows for added in index.add([video], window=1, hop=1)] == [3]
        with running(model, index=index, limits=Limits(text_length=100)) as server:
            yield server, video


def test_hits_are_those_of_the_index_and_tell_no_folder(indexed):
    server, _ = indexed
    answer = server.client.get("/v1/search", params={"text": expected_label(), "top_k": 2, "thumbnails": 3}).json()
    here = server.served.index.search(expected_label(), 2)

    assert [(m["start"], m["end"], m["logit"]) for m in answer["hits"]] == [
        (h.start, h.end, pytest.approx(h.logit, abs=1e-4)) for h in here.hits
    ]
    assert {m["video"] for m in answer["hits"]} == {"ride.mp4"}
    assert [len(m["thumbnails"]) for m in answer["hits"]] == [3, 3]
    assert (answer["query"], answer["windows"]) == (expected_label(), 3)
    assert server.client.get("/v1/info").json()["indexed"] == 3


def test_the_former_name_of_top_k_is_accepted_but_not_both(indexed):
    get = indexed[0].client.get

    assert len(get("/v1/search", params={"text": "a shape", "k": 2}).json()["hits"]) == 2
    assert get("/v1/search", params={"text": "a shape", "k": 2, "top_k": 2}).status_code == 422


def test_a_video_that_is_gone_is_still_found(indexed):
    server, video = indexed
    video.rename(f"{video}.away")
    try:
        hits = server.client.get("/v1/search", params={"text": "a shape", "thumbnails": 3}).json()["hits"]
    finally:
        video.with_name("ride.mp4.away").rename(video)

    assert [m["thumbnails"] for m in hits] == [[]] * 3


@pytest.mark.parametrize("options", [{}, {"text": ""}, {"text": " "}, {"text": "x" * 101}, {"text": "x", "top_k": 0}])
def test_searches_that_make_no_sense_are_refused(indexed, options):
    assert indexed[0].client.get("/v1/search", params=options).status_code == 422


def test_without_an_index_there_is_nothing_to_search(server):
    assert server.client.get("/v1/search?text=x").status_code == 404
    assert server.client.get("/v1/info").json()["indexed"] is None
