from motion_demo.data import make_batch
from motion_demo.labels import COLOURS, HELD_OUT, LABELS, MOTIONS, SEEN, Label
from motion_demo.train import TRAINING_TEXTS


def test_a_label_reads_as_a_sentence():
    assert Label("red", "left").text == "a red shape moving left"
    assert Label("orange", "still").text == "an orange shape standing still"


def test_labels_are_every_colour_with_every_motion():
    assert len({label.text for label in LABELS}) == len(COLOURS) * len(MOTIONS) == 70


def test_held_out_pairs_cover_every_colour_and_every_motion():
    assert {label.colour for label in HELD_OUT} == set(COLOURS)
    assert {label.motion for label in HELD_OUT} == set(MOTIONS)


def test_every_label_is_either_seen_or_held_out():
    assert sorted([*SEEN, *HELD_OUT]) == sorted(LABELS)


def test_no_training_text_names_a_held_out_pair():
    assert not {label.text for label in HELD_OUT} & set(TRAINING_TEXTS)


def test_training_batches_show_seen_pairs_alone():
    batch = make_batch(range(200), positions=[16])
    motions = list(MOTIONS)
    shown = {
        Label(COLOURS[colour], motions[motion]) for colour, motion in zip(batch.colours, batch.motions, strict=True)
    }
    assert len(shown) > 45
    assert shown <= set(SEEN)
