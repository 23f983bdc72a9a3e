"""classify, stream and eval with labels of the user's; score, labels encode."""

from __future__ import annotations

import json

import pytest

from helpers.bundles import copy_bundle, edit_manifest
from motion_demo.dataset import write_clip
from motion_demo.labels import LABELS, Label
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label

CLASSIFY = ("classify", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--json")


@pytest.fixture
def names(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text(f"a cat\n{expected_label()}\n", encoding="utf-8")
    return file


@pytest.fixture
def encoded(run, names, tmp_path):
    done = run("labels", "encode", names, "-b", DEMO_BUNDLE, "-o", tmp_path / "set.json", "--json")
    assert done.code == 0, done.err
    return done.json


def test_classify_with_labels_typed_on_the_command_line(run):
    done = run(*CLASSIFY, "--labels", f"red, {expected_label()} ,blue")

    assert {score["label"] for score in done.json["labels"]} == {"red", expected_label(), "blue"}
    assert done.err == ""


def test_a_template_is_what_each_label_is_encoded_as(run):
    words = expected_label().split()  # an orange shape circling

    done = run(*CLASSIFY, "--labels", f"{words[1]},green", "--template", f"{words[0]} {{}} shape {words[3]}")

    assert done.json["labels"][0]["label"] == words[1]


def test_an_encoded_set_gives_the_answer_of_the_file_that_it_was_encoded_from(run, names, encoded):
    from_text = run(*CLASSIFY, "--labels-file", names).json
    from_set = run(*CLASSIFY, "--labels-file", encoded["files"][0]).json

    assert (encoded["labels"], encoded["templates"]) == (2, ["{}"])
    assert from_set["labels"] == from_text["labels"]


def test_an_encoded_set_is_refused_by_another_text_tower(run, encoded, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    edit_manifest(bundle, text_tower_sha256="0" * 64)

    done = run("classify", DEMO_VIDEO, "-b", bundle, "--labels-file", encoded["files"][1])

    assert done.code == 2
    assert done.out == ""
    assert "another text tower" in done.err


def test_labels_given_twice_are_said_once(run):
    done = run(*CLASSIFY, "--labels", "a,b,a")

    assert done.code == 0
    assert [score["label"] for score in done.json["labels"]].count("a") == 2
    assert done.err == "xclip-onnx: labels given more than once are kept and share their probability: 'a'\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "a,,b"), "label 2 of 3 is empty"),
        (("--labels", ""), "label 1 of 1 is empty"),
        (("--labels", "a", "--template", "no place"), "has no {}"),
        (("--labels", "a " * 90), "has 92 tokens, the model reads at most 77"),
        (("--labels", "a", "--labels-file", "names.txt"), "give one of them"),
        (("--template", "a {}"), "need --labels or --labels-file"),
        (("--labels-file", "set.json", "--truncate"), "is encoded already"),
        (("--labels-file", "nothing.txt"), "cannot read labels from nothing.txt"),
        (("--labels-file", "latin.txt"), "latin.txt is not UTF-8 text"),
        (("--labels-file", "empty.txt"), "labels is empty"),
    ],
)
def test_labels_that_cannot_be_used_are_one_line_and_exit_code_2(run, tmp_path, options, message):
    (tmp_path / "latin.txt").write_bytes("réveil".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"\n\n")

    done = run(*CLASSIFY, *options, cwd=tmp_path)

    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_texts_that_are_too_long_are_cut_on_request(run):
    assert run(*CLASSIFY, "--labels", "a " * 90, "--truncate").code == 0


def test_score_answers_in_the_order_given(run):
    texts = ["a cat", expected_label(), "nothing at all"]

    document = run("score", DEMO_VIDEO, *texts, "-b", DEMO_BUNDLE, "--json").json

    assert set(document) == {"video", "texts", "frames", "provider", "precision", "device", "graph", "timings_ms"}
    assert [score["text"] for score in document["texts"]] == texts
    assert all(set(score) == {"text", "prob", "logit", "cosine"} for score in document["texts"])
    assert sum(score["prob"] for score in document["texts"]) == pytest.approx(1)


def test_score_prints_a_table_for_people(run):
    done = run("score", DEMO_VIDEO, "a cat", "[red] :smile:", "-b", DEMO_BUNDLE)

    assert done.code == 0
    assert all(word in done.out for word in ("cosine", "logit", "a cat", "[red] :smile:", "CPUExecutionProvider"))


def test_score_of_an_empty_text_is_refused(run):
    done = run("score", DEMO_VIDEO, "a cat", " ", "-b", DEMO_BUNDLE)

    assert done.code == 2
    assert "text 2 of 2 is empty" in done.err


def test_encode_leaves_existing_files_alone_unless_told_otherwise(run, names, encoded):
    again = ("labels", "encode", names, "-b", DEMO_BUNDLE, "-o", encoded["files"][0])

    refused, replaced = run(*again), run(*again, "--overwrite")

    assert (refused.code, replaced.code) == (2, 0)
    assert "pass --overwrite" in refused.err
    assert replaced.out.startswith("2 labels in ")


def test_stream_takes_labels_of_its_own(run):
    done = run("stream", DEMO_VIDEO, "-b", DEMO_BUNDLE, "--window", 3, "--labels", "red,blue", "--json")

    assert {score["label"] for score in done.json_lines[0]["labels"]} == {"red", "blue"}


def test_eval_takes_labels_typed_at_run_time(run, tmp_path):
    label = Label("red", "circling")
    folder = tmp_path / "data" / label.text
    folder.mkdir(parents=True)
    write_clip(folder / "clip", 2**31, label)
    (tmp_path / "labels.txt").write_text("\n".join(each.text for each in LABELS))

    done = run("eval", tmp_path / "data", "-b", DEMO_BUNDLE, "--labels-file", tmp_path / "labels.txt", "--json")

    assert done.code == 0, done.err
    assert done.json["settings"]["label_options"] == {"labels_file": str(tmp_path / "labels.txt")}
    assert done.json["n"] == 1
    assert json.loads(done.out)["top1"] == 1
