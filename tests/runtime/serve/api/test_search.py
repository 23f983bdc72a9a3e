"""/v1/search answers as the index does."""

from __future__ import annotations

import shutil

import pytest

from helpers.servers import eventually, running
from xclip_runtime.demo import DEMO_VIDEO, expected_label
from xclip_runtime.search import VideoIndex
from xclip_runtime.serve.hit_media import MAX_VIDEOS, HitMedia
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


def test_the_video_of_a_hit_is_played_in_ranges_until_it_is_moved(indexed):
    server, video = indexed
    media = server.client.get("/v1/search", params={"text": "a shape"}).json()["hits"][0]["media"]
    part = server.client.get(media, headers={"Range": "bytes=100-199"})
    for no_range in ["bytes=9-1", "bytes=a-b", "bytes=", "items=0-1", "x", f"bytes=0-{'9' * 5000}"]:
        assert server.client.get(media, headers={"Range": no_range}).status_code == 200

    assert server.client.get(media).content == video.read_bytes()
    assert (part.status_code, part.content) == (206, video.read_bytes()[100:200])
    assert (part.headers["content-type"], part.headers["x-content-type-options"]) == ("video/mp4", "nosniff")
    assert video.stem not in str(part.headers)
    video.rename(f"{video}.away")
    try:
        assert server.client.get(media).status_code == 404
    finally:
        video.with_name("ride.mp4.away").rename(video)


@pytest.mark.parametrize("token", ["0" * 32, "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", ""])
def test_only_the_videos_of_hits_are_played(indexed, token):
    assert indexed[0].client.get(f"/v1/media/{token}").status_code == 404


def test_so_many_videos_can_be_played_and_their_paths_are_those_of_one_server():
    media, other = HitMedia(), HitMedia()
    paths = [media.path_of(f"{number}.mp4") for number in range(MAX_VIDEOS + 1)]

    assert len(media) == MAX_VIDEOS
    assert media.path_of("7.mp4") == paths[7]
    assert other.path_of("7.mp4") != paths[7]

    media.forget()
    assert media.video(paths[7].rpartition("/")[2]) is None
    assert media.path_of("7.mp4") != paths[7]


def test_the_log_does_not_hold_what_plays_a_video(indexed, caplog):
    media = indexed[0].client.get("/v1/search", params={"text": "a shape"}).json()["hits"][0]["media"]
    with caplog.at_level("INFO", "xclip_runtime"):
        assert indexed[0].client.get(media).status_code == 200
        eventually(lambda: "/v1/media/{token}" in str([vars(one) for one in caplog.records]))

    assert media not in str([vars(one) for one in caplog.records])


@pytest.mark.parametrize("options", [{}, {"text": ""}, {"text": " "}, {"text": "x" * 101}, {"text": "x", "top_k": 0}])
def test_searches_that_make_no_sense_are_refused(indexed, options):
    assert indexed[0].client.get("/v1/search", params=options).status_code == 422


def test_without_an_index_there_is_nothing_to_search(server):
    assert server.client.get("/v1/search?text=x").status_code == 404
    assert server.client.get("/v1/info").json()["indexed"] is None
