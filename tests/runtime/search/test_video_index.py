"""An index finds what a text describes, scored as the model itself scores it."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizerFast, XCLIPModel

from helpers.bundles import copy_bundle, edit_manifest, reseal
from motion_demo.checkpoint import CHECKPOINT
from xclip_runtime import Reuse, XClip
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import (
    LabelsError,
    VideoDecodeError,
    VideoIndexError,
    VideoIndexMismatchError,
    VideoIndexNotFoundError,
    VideoNotFoundError,
    VideoTypeError,
)
from xclip_runtime.search import VideoIndex
from xclip_runtime.video import read_clip
from xclip_runtime.video.load import Reading

TEXTS = ["a red shape moving left", "a blue shape", "a shape standing still", "something else entirely"]
# Mean and standard deviation of ImageNet, as in the checkpoint's preprocessor_config.json.
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def reference(clips, model):
    """Logits (texts, clips), unprompted cosines (texts, clips) by transformers in torch, on the same frames."""
    torch_model = XCLIPModel.from_pretrained(CHECKPOINT).eval()
    tokens = CLIPTokenizerFast.from_pretrained(CHECKPOINT)(TEXTS, padding=True, return_tensors="pt")
    logits, cosines = [], []
    for clip in clips.values():
        frames = read_clip(clip, num_frames=32, transform=model.transform).frames
        pixels = ((torch.from_numpy(frames) / 255 - MEAN) / STD).permute(0, 3, 1, 2)[None]
        with torch.no_grad():
            answer = torch_model(**tokens, pixel_values=pixels)
            texts = torch_model.get_text_features(**tokens)
        logits.append(answer.logits_per_video[0].numpy())
        cosines.append(torch.cosine_similarity(texts, answer.video_embeds).numpy())
    return np.stack(logits, axis=1), np.stack(cosines, axis=1)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("number", range(len(TEXTS)), ids=TEXTS)
def test_hits_have_the_logits_and_cosines_of_transformers_in_their_order(index, clips, reference, number, exact):
    logits, cosines = (values[number] for values in reference)
    paths = [str(clip) for clip in clips.values()]
    order = np.argsort(-logits)

    result = index.search(TEXTS[number], top_k=6, exact=exact)

    assert [hit.video for hit in result.hits] == [paths[i] for i in order]
    np.testing.assert_allclose([hit.logit for hit in result.hits], logits[order], atol=1e-3)
    np.testing.assert_allclose([hit.cosine for hit in result.hits], cosines[order], atol=1e-5)


@pytest.mark.parametrize("number", range(len(TEXTS)), ids=TEXTS)
def test_the_shortlist_is_those_nearest_by_cosine_and_only_they_are_scored(index, clips, reference, number):
    logits, cosines = (values[number] for values in reference)
    paths = [str(clip) for clip in clips.values()]
    nearest = np.argsort(-cosines)[:3]

    result = index.search(TEXTS[number], top_k=2, shortlist=3)

    assert (result.scored, result.windows) == (3, 6)
    best = nearest[np.argsort(-logits[nearest])][:2]
    assert [hit.video for hit in result.hits] == [paths[i] for i in best]


def test_every_clip_is_found_by_what_it_shows(index, clips):
    assert {text: index.search(text, top_k=1).hits[0].video for text in clips} == {t: str(c) for t, c in clips.items()}


def test_a_whole_file_is_one_window_that_lasts_as_long_as_the_file(index):
    assert [(hit.start, hit.end) for hit in index.search("a shape", top_k=2).hits] == [(0.0, 2.0)] * 2


def test_features_in_half_precision_move_a_logit_by_little(tmp_path, index, model, clips):
    with VideoIndex.create(tmp_path, model) as half:
        list(half.add(clips.values()))
        for text in TEXTS:
            exact = {hit.video: hit.logit for hit in index.search(text).hits}
            stored = {hit.video: hit.logit for hit in half.search(text).hits}
            assert stored == pytest.approx(exact, abs=0.02)
            assert stored != exact


@pytest.fixture(scope="module")
def windowed(tmp_path_factory, model, film):
    """The film in windows of two seconds, one every second: five of them."""
    with VideoIndex.create(tmp_path_factory.mktemp("windowed"), model) as made:
        (added,) = made.add([film], window=2.0, hop=1.0)
        assert (added.outcome, added.windows) == ("added", 5)
        yield made


@pytest.mark.parametrize(
    ("text", "start"),
    [("a red shape moving left", 0), ("a blue shape growing", 2), ("a green shape standing still", 4)],
)
def test_a_search_finds_the_window_of_a_long_video(windowed, film, text, start):
    best = windowed.search(text).hits[0]

    assert (best.video, best.start, best.end) == (str(film), pytest.approx(start), pytest.approx(start + 2))


def test_of_windows_that_overlap_only_the_best_is_an_answer(windowed):
    hits = windowed.search("a blue shape growing", exact=True).hits

    assert all(a.end <= b.start or b.end <= a.start for a in hits for b in hits if a is not b)
    assert len(hits) == 3


def test_the_shortlist_grows_until_there_are_enough_windowed(windowed):
    assert len(windowed.search("a blue shape growing", top_k=3, shortlist=1).hits) == 3


def test_windowed_of_one_video_can_be_limited(windowed):
    assert len(windowed.search("a blue shape", per_video=1).hits) == 1


def test_a_window_has_the_logit_of_that_part_of_the_file(windowed, model, film):
    part = model.features(film, reading=Reading(start=2.0, end=4.0))
    expected = model.prompt_logits(part, model.text_embeds(["a blue shape growing"]))[0]

    assert windowed.search("a blue shape growing").hits[0].logit == pytest.approx(expected, abs=0.02)


def test_windows_from_cached_frames_are_found_as_exact_ones_are(tmp_path, model, film, windowed):
    text = "a blue shape growing"
    with VideoIndex.create(tmp_path / "index", model) as index:
        list(index.add([film], window=2.0, hop=0.26, reuse=Reuse()))
        (entry,) = index.store.entries()
        found, exact = (one.search(text, exact=True).hits[0] for one in (index, windowed))

    # The nearest multiple of a 32nd of the window, with which windows share their frames.
    assert entry.source.hop == 0.25
    assert (entry.exact_windows, entry.windows) == (3, 17)
    assert (exact.encoding.exact, exact.encoding.new_frames) == (True, 32)
    assert found.encoding.new_frames in (4, 32)
    assert found.start == pytest.approx(exact.start, abs=0.5)
    assert found.logit > exact.logit - 1


def test_an_index_holds_windows_from_cached_frames_or_exact_ones_and_says_which(tmp_path, model, film, clips):
    red = next(iter(clips.values()))
    with VideoIndex.create(tmp_path / "cached", model) as index:
        list(index.add([film], window=2.0, reuse=Reuse()))
    with VideoIndex.create(tmp_path / "exact", model) as index:
        list(index.add([film], window=2.0))

    for name, reuse, fix in (("cached", None, "--reuse"), ("exact", Reuse(), "--exact")):
        with VideoIndex.open(tmp_path / name, model) as index:
            assert index.store.description.reuse is (name == "cached")
            with pytest.raises(VideoIndexMismatchError, match=fix):
                index.add([red], window=2.0, reuse=reuse)
            index.delete([film])
            assert [added.outcome for added in index.add([red], window=2.0, reuse=reuse)] == ["added"]


def test_what_has_not_changed_is_skipped_and_what_has_is_replaced(tmp_path, model, clips):
    red, blue, green = list(clips.values())[:3]
    video = tmp_path / "clip.mp4"
    shutil.copy(red, video)
    with VideoIndex.create(tmp_path / "index", model) as index:
        assert [added.outcome for added in index.add([video, blue])] == ["added", "added"]
        assert [added.outcome for added in index.add([video, blue, green])] == ["unchanged", "unchanged", "added"]

        shutil.copy(green, video)
        os.utime(video, ns=(1, 1))
        assert [added.outcome for added in index.add([blue, video])] == ["unchanged", "replaced"]

        hits = index.search("a green shape standing still", top_k=4, exact=True).hits
        assert len(index) == 3
        assert {hit.video for hit in hits[:2]} == {str(video), str(green)}
        assert hits[0].logit == hits[1].logit


def test_another_cut_replaces_the_windows(tmp_path, model, film):
    with VideoIndex.create(tmp_path, model) as index:
        counts = [
            [(added.outcome, added.windows) for added in index.add([film], window=window)]
            for window in (None, 3.0, 3.0)
        ]

    assert counts == [[("added", 1)], [("replaced", 3)], [("unchanged", 3)]]


def test_a_file_named_twice_is_added_once(tmp_path, model, clips, monkeypatch):
    video = next(iter(clips.values()))
    monkeypatch.chdir(video.parent)
    with VideoIndex.create(tmp_path, model) as index:
        assert len(list(index.add([video, str(video), video.name]))) == 1


@pytest.mark.parametrize("window", [None, 1.0])
def test_a_bad_file_is_reported_in_its_place_and_the_rest_goes_on(tmp_path, model, clips, window):
    good, other = list(clips.values())[:2]
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    with VideoIndex.create(tmp_path / "index", model) as index:
        results = list(index.add([good, tmp_path / "gone.mp4", bad, other], window=window))
        paths = [entry.source.path for entry in index.store.entries()]

    assert [added.outcome for added in results] == ["added", "failed", "failed", "added"]
    assert isinstance(results[1].error, VideoNotFoundError)
    assert isinstance(results[2].error, VideoDecodeError)
    assert paths == sorted(map(str, [good, other]))


@pytest.mark.parametrize("window", [None, 1.0])
def test_a_file_that_broke_leaves_what_the_index_held_of_it(tmp_path, model, clips, window):
    video = tmp_path / "clip.mp4"
    shutil.copy(clips["a red shape moving left"], video)
    with VideoIndex.create(tmp_path / "index", model) as index:
        list(index.add([video], window=window))
        before = index.search("a red shape moving left").hits
        video.write_bytes(b"half a copy")

        assert [added.outcome for added in index.add([video], window=window)] == ["failed"]
        assert index.search("a red shape moving left").hits == before


@pytest.mark.parametrize("change", ["add", "delete"])
def test_one_path_where_several_are_wanted_is_refused_and_changes_nothing(index, change):
    """The characters of "/films" are paths, too, and everything lies under the first."""
    before = list(index.store.entries())

    with pytest.raises(VideoTypeError, match="put it into a list"):
        getattr(index, change)("/films")

    assert list(index.store.entries()) == before != []


def test_deleted_videos_are_found_no_more_and_others_still_are(tmp_path, model, clips):
    red, blue = (clips[text] for text in ("a red shape moving left", "a blue shape growing"))
    with VideoIndex.create(tmp_path, model) as index:
        list(index.add([red, blue]))

        assert index.delete([red, "/never/added.mp4"]) == 1
        assert [hit.video for hit in index.search("a red shape moving left").hits] == [str(blue)]
        assert index.delete([blue.parent]) == 1
        assert (len(index), index.search("a red shape").hits) == (0, ())
        assert [added.outcome for added in index.add([red])] == ["added"]
        assert len(index.search("a red shape").hits) == 1


def test_a_reader_sees_the_index_while_another_process_would_write(index, model, clips):
    with VideoIndex.open(index.store.folder, model) as other:
        assert len(other) == len(clips)


@pytest.mark.parametrize("tower", ["text", "prompt", "vision"])
def test_an_index_made_with_another_model_is_refused(tmp_path, index, tower):
    bundle = copy_bundle(tmp_path / "bundle")
    if tower == "text":
        edit_manifest(bundle, text_tower_sha256="0" * 64)
    graphs = json.loads((bundle / "manifest.json").read_text())["graphs"]
    for graph in (g for g in graphs.values() if g["tower"] == tower):
        # Bytes that protobuf skips: another file, the same graph.
        file = bundle / graph["file"]
        file.write_bytes(file.read_bytes() + b"\xfa\x7f\x00")
    reseal(bundle)

    with pytest.raises(VideoIndexMismatchError, match=r"another model.*pass the bundle it was made with"):
        VideoIndex.open(index.store.folder, XClip(bundle, device="cpu"))


def test_the_same_model_at_another_precision_may_search_but_not_add(index, clips):
    int8 = XClip(DEMO_BUNDLE, device="cpu", precision="int8")
    with VideoIndex.open(index.store.folder, int8) as other:
        assert other.search("a red shape").hits == index.search("a red shape").hits
        with pytest.raises(VideoIndexMismatchError, match="--precision fp32 --profile videox"):
            other.add(clips.values())


def test_a_bundle_without_a_text_tower_makes_no_index(tmp_path, model):
    bundle = copy_bundle(tmp_path / "bundle")
    graphs = {name: g for name, g in model.bundle.manifest["graphs"].items() if g["tower"] != "text"}
    edit_manifest(bundle, graphs=graphs)

    with pytest.raises(VideoIndexError, match="no text tower"):
        VideoIndex.create(tmp_path / "index", XClip(bundle, device="cpu"))
    assert not (tmp_path / "index").exists()


def test_there_is_no_index_where_none_was_made(tmp_path, model):
    with pytest.raises(VideoIndexNotFoundError, match="index add"):
        VideoIndex.open(tmp_path, model)
    (tmp_path / "other.txt").touch()
    with pytest.raises(VideoIndexError, match="other files"):
        VideoIndex.create(tmp_path, model)


def test_the_type_of_the_features_is_the_indexs_own(index, model):
    VideoIndex.create(index.store.folder, model).close()
    with pytest.raises(VideoIndexError, match="fp32, not fp16"):
        VideoIndex.create(index.store.folder, model, features="fp16")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"text": " "}, LabelsError),
        ({"text": "word " * 100}, LabelsError),
        ({"text": "a", "top_k": 0}, ValueError),
        ({"text": "a", "shortlist": 0}, ValueError),
        ({"text": "a", "shortlist": 4097}, ValueError),
        ({"text": "a", "per_video": 0}, ValueError),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(index, arguments, error):
    with pytest.raises(error):
        index.search(**arguments)
    with pytest.raises(ValueError, match="workers"):
        index.add([], workers=0)
    with pytest.raises(ValueError, match="hop"):
        index.add([], window=2.0, hop=0.001)


def test_the_number_of_hits_may_have_its_old_name(index):
    with pytest.warns(DeprecationWarning, match="top_k"):
        assert index.search("a shape", k=2).hits == index.search("a shape", top_k=2).hits
