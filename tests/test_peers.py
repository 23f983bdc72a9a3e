"""The comparison with peers keeps finished rounds, and goes on after them only where nothing has changed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OPTIONS = argparse.Namespace(rounds=3)


def turn(seconds):
    return {"seconds": seconds, "others": 0.0, "load_s": 1.0, "start_to_first_answer_s": 2.0, "peak_mb": 3.0}


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return pytest.importorskip("peers")


@pytest.fixture
def turns(peers, monkeypatch):
    """Names of the arms that ran, in order; the third turn is interrupted once, and one arm has no package."""
    ran = []

    def take_turn(name, *_, **__):
        ran.append(name)
        if len(ran) == 3:
            raise KeyboardInterrupt
        if name == "plain":
            return {"missing": "not installed: onnxruntime"}
        return {
            "seconds": float(len(ran)),
            "others": 0.0,
            "load_s": 1.0,
            "start_to_first_answer_s": 2.0,
            "peak_mb": 3.0,
        }

    monkeypatch.setattr(peers, "take_turn", take_turn)
    return ran


def test_an_interrupted_run_goes_on_after_the_last_whole_round(peers, turns, tmp_path):
    names = {name: peers.PEERS[name] for name in peers.OURS}
    run = (names, tmp_path, OPTIONS, tmp_path / "clip.npy", tmp_path / "rounds.jsonl")
    with pytest.raises(KeyboardInterrupt):
        peers.take_turns(*run)
    rounds = peers.take_turns(*run)

    assert turns == ["ours-fp32", "ours-int8", "ours-fp32", *["ours-fp32", "ours-int8"] * 3]
    assert [turn["ours-fp32"]["seconds"] for turn in rounds] == [4, 6, 8]  # the first round is for the caches


def test_an_arm_that_cannot_run_is_tried_once(peers, turns, tmp_path):
    names = {name: peers.PEERS[name] for name in ("plain", "ours-fp32")}
    turns.extend(["before"] * 3)
    rounds = peers.take_turns(names, tmp_path, OPTIONS, tmp_path / "clip.npy", tmp_path / "rounds.jsonl")

    assert turns[3:] == ["plain", *["ours-fp32"] * 4]
    assert {turn["plain"]["missing"] for turn in rounds} == {"not installed: onnxruntime"}


def test_rounds_of_another_run_are_not_gone_on_with(peers, tmp_path):
    kept = peers.rounds_folder(tmp_path, {"arms": ["plain"]}, resume=False)
    (kept / "vision.jsonl").write_text("{}\n")

    assert peers.rounds_folder(tmp_path, {"arms": ["plain"]}, resume=True) == kept
    with pytest.raises(SystemExit, match="begun with other"):
        peers.rounds_folder(tmp_path, {"arms": ["plain", "dynamic"]}, resume=True)
    assert (kept / "vision.jsonl").exists()
    peers.rounds_folder(tmp_path, {"arms": ["plain"]}, resume=False)
    assert not (kept / "vision.jsonl").exists()


def test_an_arm_is_told_by_medians_and_by_ratios_within_rounds(peers):
    seconds = ((2, 1), (6, 2), (4, 4))
    rounds = [{"plain": turn(a), "ours-fp32": turn(b), "ours-int8": {"missing": "no"}} for a, b in seconds]
    table = peers.table_of({name: peers.PEERS[name] for name in rounds[0]}, rounds, peers.OURS)

    assert table["arms"]["plain"]["seconds_median"] == 4
    assert table["arms"]["plain"]["ratio_to"] == {"ours-fp32": 2}
    assert table["arms"]["ours-int8"]["missing"] == "no"
    assert table["quiet"]
    json.dumps(table)


def test_loud_rounds_are_left_out_while_three_others_remain(peers):
    assert peers.processes.quiet_rounds([0.0, 0.5, 0.1, 0.0]) == ([0, 2, 3], True)
    assert peers.processes.quiet_rounds([0.0, 0.5, 0.1]) == ([0, 1, 2], False)
    assert peers.processes.quiet_rounds([0.0, 0.1]) == ([0, 1], True)


def test_a_record_of_every_kind_of_processor_is_read(peers, tmp_path):
    import peer_tables

    (tmp_path / "peers").mkdir()
    for kind in ("zen-4", "emerald-rapids"):
        (tmp_path / "peers" / f"{kind}.json").write_text(json.dumps({"date": kind}))

    found = peer_tables.peer_records(tmp_path)

    assert found == {"Emerald Rapids": {"date": "emerald-rapids"}, "Zen 4": {"date": "zen-4"}}


def test_a_record_tells_the_processor(peers):
    told = peers.records.lscpu()

    assert told["Architecture"]
    assert "Flags" in told or told["Architecture"] != "x86_64"
    assert not any(name.startswith("Vulnerability") for name in told)
