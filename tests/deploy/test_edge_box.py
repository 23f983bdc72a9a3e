"""A small machine: 512 MB for all of the server, one CPU, nothing to write on, and a clock that somebody sets."""

from __future__ import annotations

import io
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import av
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from helpers.boxes import clock, memory_cgroup, one_cpu, read_only_root
from helpers.servers import PATIENCE, eventually, process
from xclip_runtime.demo import DEMO_VIDEO, expected_label

pytestmark = pytest.mark.slow
VIDEO = DEMO_VIDEO.read_bytes()
HOUR, DAY, DECADE = 3600, 86_400, 315_576_000


def large_video():
    """A video of 9 megapixels, which takes some 300 MB to read."""
    file, frame = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (2304, 4096, 3), np.uint8)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "qp": "51"})
        stream.width, stream.height, stream.pix_fmt = 4096, 2304, "yuv420p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def test_88_requests_are_answered_with_512_mb_one_cpu_and_a_read_only_root(tmp_path):
    small = [*one_cpu(), *read_only_root(tmp_path)]
    with memory_cgroup(512_000_000) as group, process(prefix=[*group, *small]) as (_, address):
        with httpx.Client(base_url=address, timeout=PATIENCE) as client, ThreadPoolExecutor(4) as threads:
            replies = list(threads.map(lambda _: client.post("/v1/classify", content=VIDEO), range(88)))
        restarts = httpx.get(f"{address}/metrics").text

    assert {reply.status_code for reply in replies} == {200}
    assert {reply.json()["labels"][0]["label"] for reply in replies} == {expected_label()}
    assert 'xclip_decode_worker_restarts_total{reason="crashed"} 0.0' in restarts


def test_a_video_for_which_the_memory_does_not_suffice_costs_its_request_alone():
    with memory_cgroup(340_000_000) as group, process(prefix=group) as (server, address):
        with httpx.Client(base_url=address, timeout=PATIENCE) as client:
            large = client.post("/v1/classify", content=large_video())
            small = client.post("/v1/classify", content=VIDEO)
        assert server.poll() is None

    assert (large.status_code, large.json()["error"]["type"]) == (502, "DecoderCrashedError")
    assert small.json()["labels"][0]["label"] == expected_label()


def test_a_clock_that_jumps_by_an_hour_a_day_or_ten_years_changes_nothing(tmp_path):
    offset = tmp_path / "offset"
    offset.write_text("+0")
    with (
        process(env=clock(offset)) as (_, address),
        httpx.Client(base_url=address, timeout=PATIENCE) as client,
        connect(f"{address.replace('http', 'ws')}/v1/live") as camera,
    ):

        def shown():
            return parsedate_to_datetime(client.get("/healthz").headers["date"]).timestamp() - time.time()

        camera.send("{}")
        assert json.loads(camera.recv(PATIENCE)) == {"type": "ready"}
        kept = client.post("/v1/classify?keep=true", content=VIDEO).json()["token"]
        for seconds in (HOUR, -HOUR, DAY, DECADE, -DECADE):
            offset.write_text(f"{seconds:+d}")
            camera.send("{}")
            eventually(lambda: abs(shown() - seconds) < 60)  # noqa: B023 - called at once
            again = client.post("/v1/classify", json={"token": kept})
            assert (again.status_code, client.post("/v1/classify", content=VIDEO).status_code) == (200, 200)
            assert client.get("/v2/health/ready").status_code == 200
        metrics = client.get("/metrics").text
        camera.ping().wait(PATIENCE)

    restarts = re.findall(r"^xclip_decode_worker_restarts_total\{.*\} (\S+)$", metrics, flags=re.MULTILINE)
    assert set(restarts) == {"0.0"}
    assert "xclip_live_connections 1.0" in metrics
