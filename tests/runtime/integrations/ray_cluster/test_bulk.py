"""Bulk runs on a real Ray cluster: every video has its row, whatever happens to the workers."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
from xclip_runtime.errors import BulkError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run_bulk(cluster):
    from xclip_runtime import run_bulk

    return run_bulk


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    for number in range(7):
        shutil.copy(DEMO_VIDEO, folder / "more" / f"{number}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    return folder


def rows_of(out):
    from pyarrow import dataset

    return dataset.dataset(out, format="parquet").to_table().to_pylist()


def workers_of_this_test():
    """Ray's processes with a model, among the descendants of this one."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue

    def is_ours(pid):
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid, title in titles.items() if "MapWorker" in title and is_ours(pid)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes of the workers in /proc")
def test_two_workers_give_every_video_one_row_though_one_of_them_is_killed(run_bulk, videos, tmp_path):
    seen, killed = [], []

    def kill_one(_):
        if not killed:
            seen.extend(workers_of_this_test())
            os.kill(seen[0], signal.SIGKILL)
            killed.append(seen[0])

    report = run_bulk(videos, DEMO_BUNDLE, tmp_path / "out", workers=2, shard_size=1, progress=kill_one)

    assert len(seen) == 2
    assert killed
    assert (report.done, report.failed, report.skipped) == (7, 1, 0)
    rows = {row["video"]: row for row in rows_of(tmp_path / "out")}
    assert len(rows) == len(rows_of(tmp_path / "out")) == 8
    assert rows.pop(str(videos / "broken.mp4"))["error_type"] == "VideoDecodeError"
    expected = XClip(DEMO_BUNDLE, device="cpu").classify(DEMO_VIDEO)
    for row in rows.values():
        assert row["labels"][0] == expected_label()
        np.testing.assert_allclose(row["logits"], [label.logit for label in expected.labels], atol=1e-3)


def test_a_video_that_asks_for_gigabytes_fails_alone(run_bulk, videos, tmp_path):
    content = bytearray(DEMO_VIDEO.read_bytes())
    entries = content.index(b"stts") + 8
    content[entries : entries + 4] = (0x15555555).to_bytes(4, "big")
    (videos / "greedy.mp4").write_bytes(content)

    report = run_bulk(videos, DEMO_BUNDLE, tmp_path / "out")

    assert (report.done, report.failed, report.skipped) == (7, 2, 0)


def test_a_second_run_does_only_what_is_new(run_bulk, videos, tmp_path):
    names = [str(path) for path in sorted(videos.rglob("*.mp4"))]

    first = run_bulk(names[:3], DEMO_BUNDLE, tmp_path / "out")
    second = run_bulk(names[:5], DEMO_BUNDLE, tmp_path / "out")
    third = run_bulk(names[:5], DEMO_BUNDLE, tmp_path / "out")

    assert [(r.done + r.failed, r.skipped) for r in (first, second, third)] == [(3, 0), (2, 3), (0, 5)]
    assert sorted(row["video"] for row in rows_of(tmp_path / "out")) == sorted(names[:5])


def test_videos_that_failed_are_read_again_when_that_is_asked_for(run_bulk, videos, tmp_path):
    good = [str(path) for path in sorted((videos / "more").iterdir())[:2]]
    alone, beside = str(videos / "alone.mp4"), str(videos / "beside.mp4")
    run_bulk([alone], DEMO_BUNDLE, tmp_path / "out")
    first = run_bulk([*good, beside], DEMO_BUNDLE, tmp_path / "out")
    shutil.copy(DEMO_VIDEO, beside)

    again = run_bulk([alone, beside, *good], DEMO_BUNDLE, tmp_path / "out")
    retried = run_bulk([alone, beside, *good], DEMO_BUNDLE, tmp_path / "out", retry_failed=True)

    assert [(r.done, r.failed, r.skipped) for r in (first, again, retried)] == [(2, 1, 0), (0, 0, 4), (1, 1, 2)]
    rows = rows_of(tmp_path / "out")
    assert sorted(row["video"] for row in rows) == sorted([alone, beside, *good])
    assert [row["video"] for row in rows if row["error_type"]] == [alone]


def test_addresses_are_read_and_written_through_fsspec(run_bulk, videos, tmp_path):
    out = (tmp_path / "out").as_uri()
    missing = (videos / "missing.mp4").as_uri()
    names = [(videos / "more" / "0.mp4").as_uri(), missing]

    report = run_bulk(names, DEMO_BUNDLE, out, task="embed")

    assert (report.done, report.failed) == (1, 1)
    rows = {row["video"]: row for row in rows_of(tmp_path / "out")}
    assert "missing.mp4" in rows[missing]["error"]
    expected = XClip(DEMO_BUNDLE, device="cpu").embed(DEMO_VIDEO)
    np.testing.assert_allclose(rows[names[0]]["embedding"], expected, atol=1e-5)


def test_other_settings_need_another_folder(run_bulk, videos, tmp_path):
    run_bulk([str(videos / "broken.mp4")], DEMO_BUNDLE, tmp_path / "out")

    with pytest.raises(BulkError, match="top_k"):
        run_bulk([str(videos / "broken.mp4")], DEMO_BUNDLE, tmp_path / "out", top_k=3)


def test_a_folder_without_videos_is_refused(run_bulk, tmp_path):
    with pytest.raises(BulkError, match="no videos"):
        run_bulk(tmp_path, DEMO_BUNDLE, tmp_path / "out")
