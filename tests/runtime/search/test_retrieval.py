"""Recall and median rank, against definitions written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_runtime.errors import CaptionsError
from xclip_runtime.search import VideoIndex
from xclip_runtime.search.captions import Caption, read_captions
from xclip_runtime.search.retrieval import Directions, Recall, evaluate, first_ranks, score_pairs
from xclip_runtime.video import read_clip
from xclip_runtime.video.load import Reading

EYE = np.eye(3, dtype=bool)


def test_ranks_of_a_matrix_that_can_be_read():
    scores = np.array([[3, 2, 1], [3, 2, 1], [3, 2, 1]], np.float32)

    assert first_ranks(scores, EYE).tolist() == [1, 2, 3]
    assert first_ranks(scores, ~EYE).tolist() == [2, 1, 1]
    assert first_ranks(scores, np.ones((3, 3), bool)).tolist() == [1, 1, 1]


def test_what_scores_as_high_as_the_right_answer_counts_as_before_it():
    assert first_ranks(np.zeros((3, 3), np.float32), EYE).tolist() == [3, 3, 3]


@given(st.data())
def test_ranks_are_those_of_a_sorted_list(data):
    texts, videos = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    scores = rng.permutation(texts * videos).reshape(texts, videos).astype(np.float32)
    right = rng.random((texts, videos)) < 0.3
    right[np.arange(texts), rng.integers(videos, size=texts)] = True

    expected = [
        1 + next(place for place, video in enumerate(np.argsort(-row)) if belongs[video])
        for row, belongs in zip(scores, right, strict=True)
    ]

    assert first_ranks(scores, right).tolist() == expected


def test_recall_is_the_share_of_queries_answered_by_the_first_k():
    assert Recall.of(np.array([1, 1, 5, 6, 10, 11])) == Recall(2 / 6, 3 / 6, 5 / 6, 5.5, 6)


def test_both_directions_read_the_same_matrix():
    scores = np.array([[9, 8, 0], [7, 6, 0], [5, 4, 3]], np.float32)

    assert Directions.of(scores, EYE) == Directions(Recall.of(np.array([1, 2, 3])), Recall.of(np.array([1, 2, 1])))


def test_the_figures_of_an_index_are_those_of_all_pairs_scored_one_by_one(index, model, clips):
    # Most captions are wrong on purpose, for figures that are not all one.
    files = [str(clip) for clip in clips.values()]
    texts = [*clips, "a shape"]
    owners = [0, 2, 1, 5, 3, 4]
    captions = [Caption(files[owner], text) for text, owner in zip(clips, owners, strict=True)]
    captions += [Caption(file, "a shape") for file in files[:2]]

    result = evaluate(index, captions)

    labelled = model.with_labels(texts)
    logits = np.array([labelled.logits(model_frames(model, file)) for file in files]).T
    units = [embeds / np.linalg.norm(embeds) for embeds in model.text_embeds(texts)]
    cosines = np.array([[unit @ model.embed(file) for file in files] for unit in units])
    right = np.zeros((7, 6), bool)
    right[np.arange(6), owners] = right[6, :2] = True
    assert (result.texts, result.videos) == (7, 6)
    assert result.prompted == Directions.of(logits, right)
    assert result.cosine == Directions.of(cosines, right)
    assert 0 < result.prompted.text_to_video.r1 < result.prompted.text_to_video.r5
    assert result.to_dict()["text_to_video"]["n"] == 7


def model_frames(model, clip):
    return read_clip(clip, num_frames=32, transform=model.transform).frames


def test_of_a_video_in_windows_the_best_window_counts(tmp_path, model, film):
    texts = ["a red shape moving left", "a blue shape growing", "a green shape standing still"]
    with VideoIndex.create(tmp_path, model, features="fp32") as index:
        list(index.add([film], window=2.0, hop=2.0))
        logits, cosines = score_pairs(index, texts, [str(film), "/not/there.mp4"])

    parts = [model.features(film, reading=Reading(start=start, end=start + 2)) for start in (0.0, 2.0, 4.0)]
    text_embeds = model.text_embeds(texts)
    units = text_embeds / np.linalg.norm(text_embeds, axis=1, keepdims=True)
    each = np.array([model.prompt_logits(part, text_embeds) for part in parts])
    assert each.argmax(axis=0).tolist() == [0, 1, 2]
    np.testing.assert_allclose(logits[:, 0], each.max(axis=0), atol=1e-3)
    np.testing.assert_allclose(cosines[:, 0], np.max([units @ part.unit_embeds for part in parts], axis=0), atol=1e-5)
    assert (logits[:, 1] == -np.inf).all()


def test_captions_are_read_from_where_the_file_is(tmp_path):
    file = tmp_path / "captions.csv"
    file.write_text('\ufeffid,Video,caption\n1,a.mp4,"one, two"\n2,sub/b.mp4,eine Möwe\n3,a.mp4,again\n', "utf-8")

    assert read_captions(file) == [
        Caption(str(tmp_path / "a.mp4"), "one, two"),
        Caption(str(tmp_path / "sub/b.mp4"), "eine Möwe"),
        Caption(str(tmp_path / "a.mp4"), "again"),
    ]
    assert read_captions(file, "/videos")[1].video == "/videos/sub/b.mp4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'video'"),
        (b"video\na.mp4\n", "no column 'caption'"),
        (b"video,caption\n", "no captions"),
        (b"video,caption\na.mp4,\n", "line 2 .* lacks"),
        (b"video,caption\nb.mp4,x\na.mp4\n", "line 3 .* lacks"),
        ("video,caption\na.mp4,Möwe\n".encode("latin-1"), "not UTF-8"),
        (None, "cannot read"),
    ],
)
def test_captions_that_cannot_be_used_say_why(tmp_path, content, message):
    file = tmp_path / "captions.csv"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(CaptionsError, match=message):
        read_captions(file)
