"""Bound tensors: allocated once, kept on the device, never handed to the user."""

from __future__ import annotations

import gc
import mmap
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.small_graphs import CLIP, FakeCudaSession, clips, expected_logits, write_graphs
from xclip_runtime.inference import bound_model, installation
from xclip_runtime.inference.bound_model import LABELS_AT_ONCE, BoundModel, host_array
from xclip_runtime.inference.providers import SessionOptions
from xclip_runtime.inference.session import Session

PAGE = mmap.PAGESIZE
TEXTS = np.random.default_rng(9).standard_normal((5, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return write_graphs(tmp_path_factory.mktemp("graphs"))


def on_cpu(graphs, max_batch=4):
    return BoundModel(*(Session(path, SessionOptions("cpu")) for path in graphs), max_batch)


def on_fake_cuda(graphs, max_batch=4):
    return BoundModel(*(FakeCudaSession(path) for path in graphs), max_batch)


@pytest.fixture(params=[on_cpu, on_fake_cuda], ids=["cpu", "fake cuda"])
def model(request, graphs):
    return request.param(graphs)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_logits_are_those_of_the_graphs_for_any_number_of_clips(model, count):
    pixels = clips(count)

    scores = model.scores(pixels, model.bind_texts(TEXTS))

    np.testing.assert_allclose(scores.logits, expected_logits(pixels, TEXTS), rtol=1e-5)
    assert min(scores.vision_ms, scores.prompt_ms) > 0


@pytest.mark.parametrize("count", [1, 3, 6])
def test_features_are_those_of_the_graph(model, count):
    pixels = clips(count)

    features = model.features(pixels)

    np.testing.assert_allclose(features["video_embeds"], pixels.mean((1, 2, 3)), rtol=1e-5)
    assert features["img_features"].shape == (count, 16, 3)


def test_a_result_is_never_overwritten_by_a_later_call(model):
    texts = model.bind_texts(TEXTS)
    logits = model.scores(clips(2, seed=1), texts).logits
    features = model.features(clips(2, seed=1))
    kept = logits.copy(), {name: value.copy() for name, value in features.items()}

    for seed in range(2, 6):
        model.scores(clips(2, seed=seed), texts)
        model.features(clips(2, seed=seed))

    np.testing.assert_array_equal(logits, kept[0])
    for name, value in features.items():
        np.testing.assert_array_equal(value, kept[1][name])


def test_writing_to_a_result_changes_no_later_one(model):
    texts, pixels = model.bind_texts(TEXTS), clips(1)
    first = model.scores(pixels, texts).logits
    wanted = first.copy()
    first[:] = np.nan
    model.features(pixels)["video_embeds"][:] = np.nan

    np.testing.assert_array_equal(model.scores(pixels, texts).logits, wanted)


def test_the_callers_embeddings_may_change_after_binding_on_a_gpu(graphs):
    model, embeds = on_fake_cuda(graphs), TEXTS.copy()
    texts = model.bind_texts(embeds)
    embeds[:] = 0

    np.testing.assert_allclose(model.scores(clips(1), texts).logits, expected_logits(clips(1), TEXTS), rtol=1e-5)


def test_each_thread_gets_the_answers_to_its_own_clips(model):
    texts = model.bind_texts(TEXTS)

    def ask(seed):
        pixels = clips(1 + seed % 4, seed=seed)
        return np.abs(model.scores(pixels, texts).logits - expected_logits(pixels, TEXTS)).max()

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(ask, range(64))) < 1e-2


def test_nobody_uses_the_tensors_between_the_two_graphs_of_a_call(graphs):
    class Slow(Session):
        """Leaves time for another call to get in before each run."""

        def run_bound(self, binding, graph_id):
            threading.Event().wait(0.002)
            super().run_bound(binding, graph_id)

    model = BoundModel(*(Slow(path, SessionOptions("cpu")) for path in graphs))
    texts = model.bind_texts(TEXTS)

    def ask(seed):
        pixels = clips(1, seed=seed)
        return np.abs(model.scores(pixels, texts).logits - expected_logits(pixels, TEXTS)).max()

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(ask, range(32))) < 1e-2


def test_a_batch_size_whose_buffers_were_given_up_is_bound_anew(graphs):
    model = on_cpu(graphs)
    texts = model.bind_texts(TEXTS)
    model.scores(clips(1), texts)
    for size in range(2, bound_model.KEPT_ON_CPU + 2):
        model.features(clips(size))

    pixels = clips(1, seed=5)
    np.testing.assert_allclose(model.scores(pixels, texts).logits, expected_logits(pixels, TEXTS), rtol=1e-5)


def test_two_label_sets_on_one_model_do_not_mix(model):
    pixels, other = clips(3), -TEXTS[:2]
    first, second = model.bind_texts(TEXTS), model.bind_texts(other)

    for _ in range(2):
        np.testing.assert_allclose(model.scores(pixels, first).logits, expected_logits(pixels, TEXTS), rtol=1e-5)
        np.testing.assert_allclose(model.scores(pixels, second).logits, expected_logits(pixels, other), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_any_order_of_batch_sizes_gives_the_right_answers(sizes):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        paths = write_graphs(Path(folder))
        for model in (on_cpu(paths), on_fake_cuda(paths)):
            texts = model.bind_texts(TEXTS)
            for seed, size in enumerate(sizes):
                pixels = clips(size, seed=seed)
                logits = model.scores(pixels, texts).logits
                np.testing.assert_allclose(logits, expected_logits(pixels, TEXTS), rtol=1e-4)


def test_more_labels_than_go_through_together_are_split(model):
    many = np.random.default_rng(1).standard_normal((LABELS_AT_ONCE + 3, 3)).astype(np.float32)

    logits = model.scores(clips(2), model.bind_texts(many)).logits

    np.testing.assert_allclose(logits, expected_logits(clips(2), many), rtol=1e-4, atol=1e-2)


def test_a_gpu_pads_to_sizes_that_are_captured_once(graphs):
    vision, prompt = (FakeCudaSession(path) for path in graphs)
    model = BoundModel(vision, prompt, max_batch=6)
    texts = model.bind_texts(TEXTS)

    assert model.batch_sizes == (1, 2, 4, 6)
    for count in (1, 3, 5, 6, 3, 8):
        model.scores(clips(count), texts)

    assert vision.batches == [1, 4, 6, 6, 4, 6, 2]
    assert len(vision.captured) == 4
    assert len(prompt.captured) == 4


def test_warm_up_captures_every_size_before_the_first_clip(graphs):
    vision, prompt = (FakeCudaSession(path) for path in graphs)
    model = BoundModel(vision, prompt, max_batch=4)
    texts = model.bind_texts(TEXTS)

    assert model.warm_up(texts) > 0
    captured = len(vision.captured)
    model.scores(clips(4), texts)

    assert captured == len(vision.captured) == 3


def test_the_cpu_runs_what_is_there_and_keeps_few_buffers(graphs):
    model = on_cpu(graphs, max_batch=2)
    texts = model.bind_texts(TEXTS)

    for count in (5, 1, 3, 2, 4):
        model.scores(clips(count), texts)

    assert len(model._slots) == bound_model.KEPT_ON_CPU
    assert len(texts.bound) <= bound_model.KEPT_ON_CPU + 1


class CudaRuntime:
    """The part of libcudart that locks memory; like the real one, it refuses pages that are locked already."""

    def __init__(self):
        self.locked = {}

    def cudaHostRegister(self, address, size, _flags):  # noqa: N802
        pages = range(address.value // PAGE, -(-(address.value + size.value) // PAGE))
        if any(set(pages) & set(taken) for taken in self.locked.values()):
            return 712
        self.locked[address.value] = pages
        return 0

    def cudaHostUnregister(self, address):  # noqa: N802
        del self.locked[address.value]
        return 0


@pytest.fixture
def cuda_runtime(monkeypatch):
    runtime = CudaRuntime()
    monkeypatch.setattr(installation, "cuda_version", lambda: "13.0")
    monkeypatch.setattr(bound_model, "ctypes", SimpleNamespace(**vars(bound_model.ctypes)))
    monkeypatch.setattr(bound_model.ctypes, "CDLL", lambda name: runtime if name == "libcudart.so.13" else None)
    return runtime


def test_arrays_for_the_gpu_are_locked_each_on_pages_of_its_own(cuda_runtime):
    arrays = [host_array((size, *CLIP), pinned=True) for size in (1, 2, 3)]

    assert [array.ctypes.data in cuda_runtime.locked for array in arrays] == [True] * 3
    assert not any(array.any() for array in arrays)
    arrays[0][:] = 7  # they can be written to


def test_memory_is_unlocked_before_it_is_given_back(cuda_runtime):
    array = host_array((2, *CLIP), pinned=True)
    part = array[1:]
    del array
    gc.collect()
    assert cuda_runtime.locked, "a view still uses the memory"

    del part
    gc.collect()
    assert not cuda_runtime.locked


def test_a_model_that_is_gone_leaves_no_memory_locked(cuda_runtime, graphs):
    model = on_fake_cuda(graphs)
    model.scores(clips(3), model.bind_texts(TEXTS))
    assert cuda_runtime.locked

    del model
    gc.collect()
    assert not cuda_runtime.locked


@pytest.mark.parametrize("version", [None, "13.0"])
def test_memory_stays_pageable_without_a_cuda_runtime(monkeypatch, version):
    monkeypatch.setattr(installation, "cuda_version", lambda: version)

    assert host_array(CLIP, pinned=True).shape == CLIP
