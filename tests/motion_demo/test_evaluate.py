from types import SimpleNamespace

import av
import pytest

from motion_demo.evaluate import Answer, answers, report, wilson_score, write_clip
from motion_demo.labels import HELD_OUT, LABELS, SEEN


@pytest.mark.parametrize(("right", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775)])
def test_the_interval_is_wilsons(right, n, low, high):
    score = wilson_score(right, n)
    assert (score.low, score.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_no_clips_have_no_score():
    with pytest.raises(ValueError, match="at least one"):
        wilson_score(0, 0)


def test_evaluation_clips_are_videos_of_many_sizes_and_lengths(tmp_path):
    formats = set()
    for seed in range(6):
        write_clip(tmp_path / "clip.mp4", seed, LABELS[seed])
        with av.open(str(tmp_path / "clip.mp4")) as container:
            stream = container.streams.video[0]
            formats.add((stream.width, stream.height, stream.frames))
            assert 32 <= stream.frames <= 90
            assert stream.codec_context.name == "h264"
    assert len(formats) == 6


class Oracle:
    """Answers what it was told, from a file that it has seen to exist."""

    def __init__(self, texts):
        self.texts = iter(texts)

    def classify(self, path, *, top_k):
        assert path.stat().st_size > 1000
        best = next(self.texts)
        others = [label.text for label in LABELS if label.text != best]
        return SimpleNamespace(labels=[SimpleNamespace(label=text) for text in [best, *others]])


def test_labels_are_shown_in_turn_and_answers_recorded():
    held_out, seen = HELD_OUT[0], SEEN[0]
    given = list(answers(Oracle([held_out.text, seen.text, held_out.text]), [held_out, seen], 3, first_seed=0))
    assert [answer.label for answer in given] == [held_out, seen, held_out]
    assert all(answer.right for answer in given)
    # The best label among the seen ones stands in for a held-out guess.
    assert given[0].guess_among_seen == SEEN[0].text


def test_a_report_counts_each_group_by_itself():
    wrong, other = SEEN[0], SEEN[1]
    seen = [Answer(label, label.text, label.text) for label in SEEN]
    seen[0] = Answer(wrong, HELD_OUT[0].text, wrong.text)
    held_out = [Answer(label, other.text, other.text) for label in HELD_OUT]
    scores = report(seen, held_out)
    assert (scores["seen"]["right"], scores["seen"]["n"]) == (59, 60)
    assert scores["seen_among_seen_labels"]["right"] == 60
    assert scores["held_out"]["top1"] == 0
    assert scores["motions"][wrong.motion]["n"] == 7
    assert scores["colours"][wrong.colour]["n"] == 10
    assert scores["mistakes"][f"{wrong.text} → {HELD_OUT[0].text}"] == 1
