"""embed over many videos, into files that survive interruption."""

from __future__ import annotations

import json
import shutil

import click
import numpy as np
import pytest

from xclip_runtime import XClip
from xclip_runtime.cli.embeddings_file import EmbeddingsFile
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import VideoDecodeError
from xclip_runtime.results import VideoFeatures

OPTIONS = ("-b", DEMO_BUNDLE, "--with-features")
FACTS = {"model": {"checkpoint": "a"}}


def embed(run, *args):
    return run("embed", *args, *OPTIONS)


def rows(out):
    return np.load(f"{out}.npy"), np.load(f"{out}.features.npy")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two videos and a broken one between them."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a.mp4", "c.mp4"):
        shutil.copy(DEMO_VIDEO, folder / name)
    (folder / "b.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def embedded(run, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("embedded") / "all"
    return embed(run, clips, "--output", f"{out}.npy", "--json"), out


def test_each_video_has_a_row_and_a_name(embedded, clips):
    done, out = embedded
    model = XClip(DEMO_BUNDLE, device="cpu")
    embeds, features = rows(out)
    names = json.loads(out.with_suffix(".json").read_bytes())

    assert done.code == 1
    assert "b.mp4" in done.err
    assert done.json["files"] == [f"{out}.npy", f"{out}.json", f"{out}.features.npy"]
    assert (done.json["videos"], done.json["failed"]) == (2, 1)
    assert names["names"] == [str(clips / "a.mp4"), str(clips / "c.mp4")]
    assert [(e["video"], e["error"]["type"]) for e in names["errors"]] == [(str(clips / "b.mp4"), "VideoDecodeError")]
    assert (embeds.dtype, features.dtype, features.shape) == (np.float32, np.float16, (2, 49, 128))
    np.testing.assert_array_equal(embeds, [model.embed(DEMO_VIDEO)] * 2)
    np.testing.assert_array_equal(features[1], model.features(DEMO_VIDEO).img_features.astype(np.float16))


def test_existing_files_are_left_alone(run, embedded, clips):
    _, out = embedded

    done = embed(run, clips, "--output", out)

    assert done.code == 2
    assert "pass --resume" in done.err


def test_a_run_that_goes_on_does_only_what_is_left(run, embedded, clips, tmp_path):
    _, whole = embedded
    for suffix in (".npy", ".features.npy"):
        shutil.copy(f"{whole}{suffix}", tmp_path / f"all{suffix}")
    document = json.loads(whole.with_suffix(".json").read_bytes())
    document["names"] = document["names"][:1]
    (tmp_path / "all.json").write_text(json.dumps(document))

    done = embed(run, clips, "--output", tmp_path / "all", "--resume")

    assert "2 embeddings" in done.out
    assert "b.mp4" not in done.err
    for went_on, at_once in zip(rows(tmp_path / "all"), rows(whole), strict=True):
        np.testing.assert_array_equal(went_on, at_once)


def test_the_files_of_another_run_are_not_gone_on_with(run, embedded, clips):
    _, out = embedded

    for options, fact in ((("--start", "1"), "reading"), (("--profile", "hf"), "model")):
        done = embed(run, clips, "--output", out, "--resume", *options)
        assert done.code == 2
        assert f"another {fact}" in done.err.replace("\n", " ")


# The files


def features(number):
    return VideoFeatures(np.full(4, number, np.float32), np.full((3, 4), number, np.float32))


@pytest.fixture
def open_file():
    """Opens files that are closed in the end, whatever became of them."""
    opened = []

    def open_file(folder, *, resume=False):
        opened.append(EmbeddingsFile(str(folder / "out"), (4,), (3, 4), FACTS, resume=resume))
        return opened[-1]

    yield open_file
    for file in opened:
        file.close()


def fill(file, numbers):
    for number in numbers:
        file.append(f"{number}.mp4", features(number))


def test_what_was_written_after_the_last_names_is_cut_off(open_file, tmp_path):
    file = open_file(tmp_path)
    fill(file, (1, 2))
    file.save()
    before = (tmp_path / "out.json").read_bytes()
    fill(file, (3, 4))
    file.save()
    (tmp_path / "out.json").write_bytes(before)
    with (tmp_path / "out.features.npy").open("ab") as rows_file:
        rows_file.write(b"half a row")

    file = open_file(tmp_path, resume=True)
    assert list(file.remaining(["1.mp4", "2.mp4", "3.mp4", "3.mp4"])) == ["3.mp4", "3.mp4"]
    fill(file, (5,))
    file.save()

    embeds, stored = rows(tmp_path / "out")
    np.testing.assert_allclose(embeds, np.full((3, 4), 0.5))
    np.testing.assert_array_equal(stored[:, 0, 0], [1, 2, 5])


def test_the_header_keeps_its_length_however_many_rows_there_are(open_file, tmp_path):
    file = open_file(tmp_path)
    for count in (1, 10, 1000):
        fill(file, range(1, count + 1))
        file.save()
        assert len(rows(tmp_path / "out")[0]) == len(file.names)


def test_a_run_that_was_killed_before_its_first_names_begins_anew(open_file, tmp_path):
    (tmp_path / "out.npy").write_bytes(b"\x93NUMPY")

    file = open_file(tmp_path, resume=True)
    fill(file, (1,))
    file.save()

    assert rows(tmp_path / "out")[0].shape == (1, 4)


def test_lost_rows_are_noticed(open_file, tmp_path):
    file = open_file(tmp_path)
    fill(file, (1, 2))
    file.save()
    (tmp_path / "out.npy").write_bytes((tmp_path / "out.npy").read_bytes()[:-1])

    with pytest.raises(click.UsageError, match="fewer than the 2 rows"):
        open_file(tmp_path, resume=True)


def test_failed_videos_are_kept_and_not_tried_again(open_file, tmp_path):
    file = open_file(tmp_path)
    file.append("bad.mp4", VideoDecodeError("broken"))
    file.save()

    file = open_file(tmp_path, resume=True)

    assert file.errors == [{"video": "bad.mp4", "error": {"type": "VideoDecodeError", "message": "broken"}}]
    assert list(file.remaining(["bad.mp4", "good.mp4"])) == ["good.mp4"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"names": 3}', '{"names": [], "errors": []}'])
def test_another_json_of_that_name_is_left_alone(open_file, tmp_path, content):
    (tmp_path / "out.json").write_text(content)

    with pytest.raises(click.UsageError):
        open_file(tmp_path, resume=True)
    assert (tmp_path / "out.json").read_text() == content


def test_names_that_are_no_utf8_are_kept(open_file, tmp_path):
    file = open_file(tmp_path)
    file.append("caf\udce9.mp4", features(1))
    file.save()

    assert open_file(tmp_path, resume=True).names == ["caf\udce9.mp4"]
