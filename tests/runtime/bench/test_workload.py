"""A benchmark measures what `classify` does: the same runs of the same sessions, and the same answers."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from xclip_runtime import XClip
from xclip_runtime.bench.workload import Workload
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.inference.session import Session


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos whose answers differ."""
    path = tmp_path_factory.mktemp("videos") / "noise.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 64))
    for frame in np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8):
        writer.write(frame)
    writer.release()
    return str(DEMO_VIDEO), str(path)


@pytest.fixture(scope="module", params=[1, 2], ids=["one by one", "batches of two"])
def model(request):
    return XClip(DEMO_BUNDLE, device="cpu", batch_size=request.param)


@pytest.fixture
def runs(monkeypatch):
    """Every run of a session: its outputs, and the number of its bound tensors, which are those of a batch size."""
    recorded = []
    run_bound, run = Session.run_bound, Session.run

    def record_bound(self, binding, graph_id):
        recorded.append(([output.name for output in self.outputs], graph_id))
        run_bound(self, binding, graph_id)

    def record(self, feeds):
        recorded.append(([output.name for output in self.outputs], {name: x.shape for name, x in feeds.items()}))
        return run(self, feeds)

    monkeypatch.setattr(Session, "run_bound", record_bound)
    monkeypatch.setattr(Session, "run", record)
    return recorded


@pytest.mark.parametrize("source", ["clip", "file"])
def test_an_answer_runs_what_classify_runs(model, videos, runs, source):
    workload = Workload.of(model, videos, source, model.info["batch_size"])
    chosen = [videos[number % 2] for number in range(3)]
    model.classify(chosen)
    runs.clear()

    expected = model.classify(chosen)
    by_classify = list(runs)
    runs.clear()
    answers = workload.answer(range(3))

    assert runs == by_classify
    assert len(runs) == 2 * len(range(0, 3, workload.batch_size))
    assert [answer.labels for answer in answers] == [result.labels for result in expected]
    assert answers[0].labels != answers[1].labels


def test_samples_go_through_the_videos_in_turn(model, videos):
    workload = replace(Workload.of(model, videos), input="file")

    assert [answer.video for answer in workload.answer([0, 1, 2, 5])] == [videos[0], videos[1], videos[0], videos[1]]
