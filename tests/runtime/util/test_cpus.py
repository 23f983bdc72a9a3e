"""The CPUs of a container."""

import os

import pytest

from xclip_runtime.util import cpus as module
from xclip_runtime.util.cpus import available_cpus, default_workers


@pytest.mark.parametrize(
    ("content", "cpus"),
    [("max 100000", None), ("150000 100000", 1.5), ("400000 100000", 4.0)],
)
def test_a_cgroup_v2_quota_is_read(tmp_path, content, cpus):
    (tmp_path / "cpu.max").write_text(content)

    assert module._cgroup_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", None), ("50000", 0.5)])
def test_a_cgroup_v1_quota_is_read(tmp_path, quota, cpus):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")

    assert module._cgroup_cpus(tmp_path) == cpus


def test_a_machine_without_cgroups_has_no_quota(tmp_path):
    assert module._cgroup_cpus(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.5, 2), (1000.0, None), (None, None)])
def test_threads_are_the_smaller_of_affinity_and_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(module, "_cgroup_cpus", lambda root: quota)
    affinity = len(os.sched_getaffinity(0))

    assert available_cpus() == min(affinity, expected or affinity)


@pytest.mark.parametrize(
    ("cpus", "memory", "workers"),
    [(2, 8 << 30, 2), (16, 128 << 30, 16), (16, 4 << 30, 8), (4, 100 << 20, 1), (16, None, 4), (1, None, 1)],
)
def test_as_many_videos_are_read_at_once_as_there_are_cpus_and_memory(monkeypatch, cpus, memory, workers):
    monkeypatch.setattr(module, "available_cpus", lambda: cpus)
    monkeypatch.setattr(module, "available_memory", lambda: memory)

    assert default_workers() == workers


@pytest.mark.parametrize(
    ("line", "found", "fast"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni avx512f", ("avx2", "avx512f", "avx512_vnni"), True),
        ("flags\t\t: fpu avx2", ("avx2",), False),
        ("Features\t: asimd asimddp", ("asimd", "asimddp"), True),
        ("", (), None),
    ],
)
def test_instruction_sets_are_those_of_the_processor(monkeypatch, tmp_path, line, found, fast):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "cpuinfo")

    assert module.instruction_sets() == found
    assert module.int8_is_fast() is fast


def test_a_system_without_cpuinfo_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "nothing")

    assert module.int8_is_fast() is None
