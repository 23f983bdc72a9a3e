"""The database: a kill at any moment loses nothing that was done, and damage is named."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import apsw
import numpy as np
import pytest

from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import MissingExtraError, OutputLockedError, VideoIndexError, VideoIndexNotFoundError
from xclip_runtime.results import Encoding, VideoFeatures
from xclip_runtime.search import VideoIndex
from xclip_runtime.search import store as store_module
from xclip_runtime.search.identity import ModelIdentity
from xclip_runtime.search.store import DATABASE, IndexDescription, Source, Store

DIMENSION = 16
EXACT, CACHED = Encoding.all_new(32), Encoding(exact=False, new_frames=4, frames=32, drift=0.25)
DESCRIPTION = IndexDescription(ModelIdentity("checkpoint", "v", "p", "t", "fp32", "videox", DIMENSION), "fp32")
PRELUDE = f"""
import os, signal, sys
from xclip_runtime import XClip
from xclip_runtime.search import VideoIndex, store
from xclip_runtime.results import VideoFeatures
folder, *videos = sys.argv[1:]
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
model = XClip({str(DEMO_BUNDLE)!r}, device="cpu")
"""


def killed(code, *arguments):
    """Run a script that kills itself with a signal that no process can catch."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    return done.stdout


def features(rng, patches=4):
    return VideoFeatures(
        rng.standard_normal(DIMENSION).astype(np.float32), rng.standard_normal((patches, DIMENSION)).astype(np.float32)
    )


def source(path, **changes):
    return Source(**{"path": path, "size": 1, "mtime_ns": 2, "window": None, "hop": None, **changes})


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "index", DESCRIPTION) as made:
        yield made


def test_a_kill_while_a_video_is_written_leaves_those_before_it_and_no_trace_of_it(tmp_path, model, clips):
    first, second, *_ = clips.values()
    killed(
        """
        with VideoIndex.create(folder, model) as index:
            added = index.add(videos)
            next(added)
            # Read in the middle of the transaction, between the rows of the two tables.
            VideoFeatures.unit_embeds = property(kill)
            next(added)
        """,
        tmp_path,
        first,
        second,
    )

    with VideoIndex.open(tmp_path, model) as index:
        assert [(entry.source.path, entry.complete) for entry in index.store.entries()] == [(str(first), True)]
        assert [hit.video for hit in index.search("a red shape", exact=True).hits] == [str(first)]
        assert [added.outcome for added in index.add([first, second])] == ["unchanged", "added"]
        assert len(index.search("a red shape").hits) == 2


def test_after_a_kill_in_a_long_video_only_what_is_missing_is_seen_again(tmp_path, model, film, monkeypatch):
    killed(
        """
        with VideoIndex.create(folder, model) as index:
            for _ in index.add(videos, window=2.0, hop=1.0, on_window=lambda _, end: end > 3.5 and kill()):
                pass
        """,
        tmp_path / "killed",
        film,
    )
    seen = []
    see = model.features
    monkeypatch.setattr(model, "features", lambda clip: seen.append(clip) or see(clip))

    with VideoIndex.open(tmp_path / "killed", model) as index:
        (entry,) = index.store.entries()
        assert (entry.complete, entry.windows) == (False, 3)
        assert len(index.search("a blue shape growing", exact=True).hits) > 0
        assert [(a.outcome, a.windows) for a in index.add([film], window=2.0, hop=1.0)] == [("resumed", 5)]
        assert len(seen) == 2
        assert next(index.store.entries()).complete
        resumed = index.search("a blue shape growing", exact=True).hits
    with VideoIndex.create(tmp_path / "fresh", model) as index:
        list(index.add([film], window=2.0, hop=1.0))
        assert index.search("a blue shape growing", exact=True).hits == resumed


def test_a_kill_while_a_changed_video_is_replaced_leaves_the_old_one(tmp_path, model, clips):
    red, blue, *_ = clips.values()
    video = tmp_path / "clip.mp4"
    video.write_bytes(red.read_bytes())
    with VideoIndex.create(tmp_path / "index", model) as index:
        list(index.add([video]))
        before = index.search("a red shape moving left").hits
    video.write_bytes(blue.read_bytes())
    killed(
        """
        VideoFeatures.unit_embeds = property(kill)
        with VideoIndex.create(folder, model) as index:
            list(index.add(videos))
        """,
        tmp_path / "index",
        video,
    )

    with VideoIndex.open(tmp_path / "index", model) as index:
        assert index.search("a red shape moving left").hits == before
        assert [added.outcome for added in index.add([video])] == ["replaced"]
        assert index.search("a red shape moving left").hits != before


def test_a_kill_while_an_index_is_made_leaves_a_folder_that_can_be_used(tmp_path, model, clips):
    killed("store.asdict = kill; VideoIndex.create(folder, model)", tmp_path)

    assert (tmp_path / DATABASE).exists()
    with pytest.raises(VideoIndexNotFoundError, match="index add"):
        VideoIndex.open(tmp_path, model)
    with VideoIndex.create(tmp_path, model) as index:
        assert [added.outcome for added in index.add([next(iter(clips.values()))])] == ["added"]


def test_a_second_that_adds_to_an_index_is_refused_until_the_first_has_ended(tmp_path, model, clips):
    videos = list(clips.values())
    with VideoIndex.create(tmp_path, model) as first, VideoIndex.open(tmp_path, model) as second:
        adding = first.add(videos[:3])
        next(adding)
        with pytest.raises(OutputLockedError, match=f"{tmp_path} is being written by process {os.getpid()} on "):
            list(second.add(videos[3:]))
        assert [added.outcome for added in adding] == ["added"] * 2
        assert [added.outcome for added in second.add(videos[3:])] == ["added"] * 3
        assert {hit.video for hit in first.search("a shape").hits} == {str(video) for video in videos}


def test_an_error_in_the_middle_of_a_video_leaves_no_trace_of_it(store):
    rng = np.random.default_rng(7)
    store.put(source("/a"), 0.0, 1.0, features(rng), EXACT, first=True, last=True)
    other_width = VideoFeatures(np.ones(DIMENSION + 1, np.float32), np.ones((4, DIMENSION), np.float32))

    for path in ("/a", "/b"):
        with pytest.raises(VideoIndexError):
            store.put(source(path), 0.0, 1.0, other_width, EXACT, first=True, last=True)

    assert [entry.source.path for entry in store.entries()] == ["/a"]
    assert len(store) == len(list(store.features())) == 1


def test_what_is_nearest_is_what_numpy_finds(store):
    rng = np.random.default_rng(0)
    added = [features(rng) for _ in range(50)]
    for number, one in enumerate(added):
        store.put(source(f"/{number}"), 0.0, 1.0, one, EXACT, first=True, last=True)
    for number in range(0, 50, 3):
        store.delete([f"/{number}"])
    query = features(rng).unit_embeds

    nearest = store.nearest(query, 10)

    cosines = {f"/{i}": query @ one.unit_embeds for i, one in enumerate(added) if i % 3}
    assert [store.span(window).path for window in nearest] == sorted(cosines, key=cosines.get, reverse=True)[:10]


@pytest.mark.parametrize(("stored", "tolerance"), [("fp32", 0), ("fp16", 1e-3)])
def test_features_come_back_as_they_went_in(tmp_path, stored, tolerance):
    one = features(np.random.default_rng(1))
    with Store.create(tmp_path, IndexDescription(DESCRIPTION.model, stored)) as store:
        store.put(source("/a"), 0.5, 1.25, one, EXACT, first=True, last=True)
        ((window, back),) = store.features()

        assert store.span(window) == store_module.WindowSpan("/a", 0.5, 1.25, EXACT)
        np.testing.assert_array_equal(back.video_embeds, one.unit_embeds)
        np.testing.assert_allclose(back.img_features, one.img_features, rtol=tolerance)
        assert (back.img_features.dtype, back.img_features.shape) == (np.float32, (4, DIMENSION))


def of_before(folder):
    """Make of an index one from before the encoding of a window was stored."""
    connection = apsw.Connection(str(folder / DATABASE))
    for column in ("new_frames", "frames", "drift"):
        connection.execute(f"ALTER TABLE windows DROP COLUMN {column}")
    connection.close()


def test_windows_say_how_they_were_computed(store):
    rng = np.random.default_rng(1)
    store.put(source("/a"), 0.0, 1.0, features(rng), EXACT, first=True, last=False)
    store.put(source("/a"), 1.0, 2.0, features(rng), CACHED, first=False, last=True)

    assert [store.span(window).encoding for window in store.windows("/a")] == [EXACT, CACHED]
    (entry,) = store.entries()
    assert (entry.exact_windows, entry.new_frames, entry.drift) == (1, 18.0, 0.25)


@pytest.mark.parametrize("writable", [True, False])
def test_an_index_of_before_opens_and_does_not_say_how_its_windows_were_computed(store, monkeypatch, writable):
    rng = np.random.default_rng(1)
    store.put(source("/a"), 0.0, 1.0, features(rng), EXACT, first=True, last=True)
    store.close()
    of_before(store.folder)
    if not writable:
        monkeypatch.setattr(os, "access", lambda *_: False)

    with Store.open(store.folder) as opened:
        (old,) = opened.entries()
        assert opened.span(1).encoding is None
        assert (old.windows, old.exact_windows, old.new_frames, old.drift) == (1, None, None, None)
        if writable:
            opened.put(source("/b"), 0.0, 1.0, features(rng), CACHED, first=True, last=True)
            assert [opened.span(window).encoding for window in (1, 2)] == [None, CACHED]
            assert [entry.exact_windows for entry in opened.entries()] == [None, 0]


@pytest.mark.parametrize("library", ["apsw", "sqlite_vec"])
def test_without_the_extra_the_error_names_it(tmp_path, store, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(MissingExtraError, match=r"xclip-onnx\[index\]"):
        Store.open(store.folder)
    with pytest.raises(MissingExtraError, match=r"xclip-onnx\[index\]"):
        Store.create(tmp_path / "new", DESCRIPTION)
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()


def test_deleting_gives_space_back_to_the_disk(tmp_path):
    rng = np.random.default_rng(2)
    with Store.create(tmp_path, DESCRIPTION) as store:
        for number in range(20):
            store.put(source(f"/{number}"), 0.0, 1.0, features(rng, patches=1000), EXACT, first=True, last=True)
    full = store.bytes_on_disk
    with Store.open(tmp_path) as store:
        assert store.delete(f"/{number}" for number in range(19)) == 19

    assert store.bytes_on_disk < full / 4
    assert [file.name for file in tmp_path.iterdir()] == [DATABASE]


def test_a_folder_names_all_files_below_it_and_no_others(store):
    names = ["/a/b/1.mp4", "/a/b/c/2.mp4", "/a/bc.mp4", "/a/b.mp4", os.fsdecode(b"/a/b/\xff.mp4")]
    for name in names:
        store.put(source(name), 0.0, 1.0, features(np.random.default_rng(3)), EXACT, first=True, last=True)

    assert store.under("/a/b") == ["/a/b/1.mp4", "/a/b/c/2.mp4", names[-1]]
    assert store.under("/a/x/../b.mp4") == ["/a/b.mp4"]
    assert store.under("/") == sorted(names)
    assert store.under("/a/b%") == []


def test_an_index_on_a_read_only_disk_is_searched_and_left_as_it_is(tmp_path, store, monkeypatch):
    store.put(source("/a"), 0.0, 1.0, features(np.random.default_rng(4)), EXACT, first=True, last=True)
    store.close()
    monkeypatch.setattr(os, "access", lambda *_: False)

    with Store.open(store.folder) as reader:
        assert len(reader) == 1
        assert len(reader.nearest(features(np.random.default_rng(5)).unit_embeds, 3)) == 1
        assert [file.name for file in store.folder.iterdir()] == [DATABASE]
        with pytest.raises(VideoIndexError, match="permissions"):
            reader.delete(["/a"])


def damage_header(file):
    file.write_bytes(b"no database" + file.read_bytes()[11:])


def cut_off(file):
    file.write_bytes(file.read_bytes()[:9000])


def another_schema(file):
    connection = apsw.Connection(str(file))
    connection.pragma("user_version", 99)
    connection.close()


def somebody_elses(file):
    file.unlink()
    connection = apsw.Connection(str(file))
    connection.execute("PRAGMA user_version = 1; CREATE TABLE t (x)")
    connection.close()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage_header, "damaged.*add the videos"),
        (cut_off, "damaged.*add the videos"),
        (another_schema, "schema 1.*new index"),
        (somebody_elses, "schema 1.*new index"),
    ],
)
def test_a_database_that_cannot_be_used_says_why_in_one_line(store, harm, message):
    for number in range(9):
        store.put(source(f"/{number}"), 0.0, 1.0, features(np.random.default_rng(6)), EXACT, first=True, last=True)
    store.close()
    harm(store.folder / DATABASE)

    with pytest.raises(VideoIndexError, match=message) as caught:
        list(Store.open(store.folder).features())
    assert "\n" not in str(caught.value)
