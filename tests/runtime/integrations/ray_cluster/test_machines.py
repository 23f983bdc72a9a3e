"""Bulk runs on two machines, one of which has trouble: every video has its one row, or the run its one line.

The machines are network namespaces, as `helpers.ray_nodes` makes them; the object store is moto.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from helpers import ray_nodes
from helpers.servers import eventually
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def machines():
    pytest.importorskip("ray", reason="Ray is large, and not in the extra [dev]: pip install 'xclip-onnx[ray]'")
    reason = ray_nodes.obstacle()
    if reason:
        pytest.skip(reason)
    with ray_nodes.Machines() as two:
        yield two


@pytest.fixture
def place(machines, record_property):
    """Folder that both machines share, with the bundle and 16 videos; what happens there is noted."""
    folder = Path(tempfile.mkdtemp(dir=machines.folder))
    (folder / "videos").mkdir()
    for number in range(16):
        shutil.copy(DEMO_VIDEO, folder / "videos" / f"{number:02}.mp4")
    shutil.copytree(DEMO_BUNDLE, folder / "bundle")
    machines.happened.clear()
    yield folder
    for line in machines.happened:
        record_property("happened", line)


@pytest.fixture
def elsewhere(place):
    """Options of runs on a machine in trouble, to which the other comes later."""
    return {"bundle": place / "bundle", "output": place / "out", "workers": 2, "shard_size": 2}


@pytest.fixture
def store(machines):
    """Object store with the bucket ``bulk``, whose server both machines reach."""
    s3fs = pytest.importorskip("s3fs", reason="the object store needs it: pip install s3fs 'moto[server]'")
    pytest.importorskip("moto", reason="the object store needs it: pip install s3fs 'moto[server]'")
    command = [sys.executable, "-m", "moto.server", "-H", ray_nodes.ROUTER, "-p", "5000"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with socket.socket() as client:
            eventually(lambda: client.connect_ex((ray_nodes.ROUTER, 5000)) == 0)
        store = s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=f"http://{ray_nodes.ROUTER}:5000")
        store.mkdir("bulk")
        yield store
    finally:
        server.kill()
        server.wait()


def videos_of(output, filesystem=None):
    from pyarrow import dataset

    table = dataset.dataset(output, format="parquet", filesystem=filesystem).to_table(columns=["video", "error_type"])
    return table.to_pylist()


def each_once(rows, videos):
    counts = Counter(row["video"].rpartition("/")[2] for row in rows)
    return counts == Counter(path.name for path in videos.iterdir())


def wait_for_a_group(driver):
    assert driver.stdout.readline() == "group\n"


def age(path):
    hours_ago = time.time() - 7200
    os.utime(path, (hours_ago, hours_ago))


@contextmanager
def disk(machine, folder, number, **options):
    machine.mount(number, folder, **options)
    try:
        yield
    finally:
        machine.unmount(number, folder)


def test_a_second_run_says_who_holds_the_folder(machines, place):
    options = {"videos": place / "videos", "bundle": place / "bundle", "output": place / "out"}
    first = machines.drive(**options, shard_size=1, hold=place / "go")
    wait_for_a_group(first)
    shutil.copy(DEMO_VIDEO, place / "videos" / "added.mp4")

    second = machines.run(**options, shard_size=5)
    (place / "go").touch()
    assert machines.answer(first) == {"done": 16, "failed": 0, "skipped": 0}
    third = machines.run(**options, shard_size=5)

    assert second["error"] == "BulkError"
    assert f"process {first.pid} on" in second["message"]
    assert third == {"done": 1, "failed": 0, "skipped": 16}
    assert each_once(videos_of(place / "out"), place / "videos")


def test_an_object_store_holds_the_claim_too(machines, place, store):
    options = {"videos": place / "videos", "bundle": place / "bundle", "output": "s3://bulk/out"}
    first = machines.drive(**options, shard_size=1, hold=place / "go")
    wait_for_a_group(first)

    second = machines.run(**options, shard_size=5)
    (place / "go").touch()
    assert machines.answer(first) == {"done": 16, "failed": 0, "skipped": 0}

    assert second["error"] == "BulkError"
    assert f"process {first.pid} on" in second["message"]
    store.invalidate_cache()
    assert each_once(videos_of("bulk/out", store), place / "videos")


@pytest.mark.parametrize("output", ["on_a_disk", "on_s3", "after_a_killed_one"])
def test_of_runs_that_start_at_once_one_reads_the_videos(machines, place, request, output):
    store = request.getfixturevalue("store") if output == "on_s3" else None
    if output == "after_a_killed_one":
        (place / "out").mkdir()
        (place / "out" / "_run.json").write_text('{"run": "killed", "process": 1, "host": "lost"}')
        age(place / "out" / "_run.json")
    options = {"videos": place / "videos", "bundle": place / "bundle"}
    options["output"] = "s3://bulk/race" if store else place / "out"

    drivers = [machines.drive(**options, shard_size=size, start=place / "go") for size in (1, 2, 5)]
    for driver in drivers:
        assert driver.stdout.readline() == "ready\n"
    (place / "go").touch()
    answers = [machines.answer(driver) for driver in drivers]

    # Who comes when the first has ended finds nothing to do.
    assert sum(answer.get("done", 0) for answer in answers) == 16
    assert {answer.get("error", "BulkError") for answer in answers} == {"BulkError"}
    assert each_once(videos_of("bulk/race" if store else place / "out", store), place / "videos")


def test_the_claim_of_a_killed_driver_ends(machines, place):
    options = {"videos": place / "videos", "bundle": place / "bundle", "output": place / "out"}
    killed = machines.drive(**options, shard_size=1, hold=place / "go")
    wait_for_a_group(killed)
    killed.kill()
    killed.communicate()

    at_once = machines.run(**options)
    age(place / "out" / "_run.json")
    later = machines.run(**options)

    assert at_once["error"] == "BulkError"
    assert later["done"] + later["skipped"] == 16
    assert each_once(videos_of(place / "out"), place / "videos")
    assert not list((place / "out").glob("_unfinished-*"))


@pytest.mark.parametrize("machine", [0, 1])
def test_videos_are_read_elsewhere_where_a_temporary_disk_is_full(machines, place, elsewhere, machine):
    addresses = [path.as_uri() for path in sorted((place / "videos").iterdir())]
    # Room for the small file by which Python chooses a place, but not for a video.
    with disk(machines, machines.temporary, machine, size="8k"):
        report = machines.run(**elsewhere, videos=addresses, busy=machines.address(1 - machine))

    assert report == {"done": 16, "failed": 0, "skipped": 0}
    assert each_once(videos_of(place / "out"), place / "videos")


def test_videos_are_read_elsewhere_where_their_disk_is_not_mounted(machines, place, elsewhere):
    (place / "videos" / "broken.mp4").write_bytes(b"no video" * 100)
    with disk(machines, place / "videos", 1):
        report = machines.run(**elsewhere, videos=place / "videos", busy=machines.address(0))

    assert report == {"done": 16, "failed": 1, "skipped": 0}
    assert each_once(videos_of(place / "out"), place / "videos")


def test_videos_are_read_elsewhere_where_the_bundle_is_missing(machines, place, elsewhere):
    with disk(machines, place / "bundle", 1):
        report = machines.run(**elsewhere, videos=place / "videos", busy=machines.address(0))

    assert report == {"done": 16, "failed": 0, "skipped": 0}


def test_videos_are_read_elsewhere_where_memory_is_short(machines, place, elsewhere):
    (place / "videos" / "broken.mp4").write_bytes(b"no video" * 100)
    with machines.short_of_memory(1):
        report = machines.run(**elsewhere, videos=place / "videos", busy=machines.address(0))

    assert report == {"done": 16, "failed": 1, "skipped": 0}
    assert each_once(videos_of(place / "out"), place / "videos")


def test_a_bundle_that_no_machine_has_is_one_line(machines, place):
    with disk(machines, place / "bundle", 0), disk(machines, place / "bundle", 1):
        answer = machines.run(videos=place / "videos", bundle=place / "bundle", output=place / "out", workers=2)

    assert answer["error"] == "BulkError"
    assert "\n" not in answer["message"]
    assert str(place / "bundle") in answer["message"]
    assert machines.address(0) in answer["message"]


def test_a_disk_of_results_that_is_full_is_one_line(machines, place):
    output, filler = machines.small / "out", machines.small / "filler"
    options = {"videos": place / "videos", "bundle": place / "bundle", "output": output, "workers": 2, "shard_size": 1}
    output.mkdir()
    with suppress(OSError):  # Until the disk is full, but for the claim and the settings.
        filler.write_bytes(bytes(300_000))
    os.truncate(filler, filler.stat().st_size - 16_384)
    driver = machines.drive(**options)
    answer = machines.answer(driver)
    filler.unlink()
    unfinished = list(output.glob("_unfinished-*"))
    resumed = machines.run(**options)

    assert answer["error"] == "BulkError"
    assert "\n" not in answer["message"]
    assert "No space left on device" in answer["message"]
    assert machines.address(1) in answer["message"]
    assert not unfinished
    assert resumed["done"] + resumed["skipped"] == 16
    assert each_once(videos_of(output), place / "videos")


def test_a_network_that_is_cut_for_twenty_seconds_costs_nothing(machines, place):
    driver = machines.drive(
        videos=place / "videos", bundle=place / "bundle", output=place / "out", workers=2, shard_size=1
    )
    wait_for_a_group(driver)
    machines.cut(1)
    time.sleep(20)
    machines.join(1)

    assert machines.answer(driver) == {"done": 16, "failed": 0, "skipped": 0}
    assert each_once(videos_of(place / "out"), place / "videos")


def test_a_machine_that_is_lost_costs_nothing(machines, place):
    driver = machines.drive(
        videos=place / "videos", bundle=place / "bundle", output=place / "out", workers=2, shard_size=1
    )
    wait_for_a_group(driver)
    machines.kill(1)

    assert machines.answer(driver) == {"done": 16, "failed": 0, "skipped": 0}
    assert each_once(videos_of(place / "out"), place / "videos")
