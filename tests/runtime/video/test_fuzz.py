import pytest

from helpers import fuzz


@pytest.mark.timeout(120)
def test_damaged_clips_end_in_a_result_or_a_named_error(clip_folder):
    folder = clip_folder / "fuzz"
    folder.mkdir()
    outcomes, failures = fuzz.fuzz(folder, cases=300, seed=0)
    assert failures == []
    assert outcomes.total() == 300
    assert outcomes.keys() == {"sequential", "selective", "VideoDecodeError", "NoFramesError"}


def test_a_crash_of_native_code_is_told_and_survived(clip_folder, monkeypatch, tmp_path):
    script = tmp_path / "crashing.py"
    script.write_text(
        "import json, os, signal, sys\n"
        "case, last = int(sys.argv[4]), int(sys.argv[5])\n"
        "if case == 0:\n"
        "    print(json.dumps({'case': 0, 'outcomes': ['selective']}), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "for number in range(case, last):\n"
        "    print(json.dumps({'case': number, 'outcomes': ['selective']}), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(script))
    monkeypatch.setattr(fuzz, "SEEDS", fuzz.SEEDS[:1])
    outcomes, failures = fuzz.fuzz(tmp_path, cases=4, seed=7)
    assert failures == ["seed 7 case 1 (h264.mp4): signal 11"]
    assert outcomes == {"selective": 3}
