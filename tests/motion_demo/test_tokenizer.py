import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import CLIPTokenizer, CLIPTokenizerFast

from motion_demo.labels import LABELS
from motion_demo.tokenizer import read_merges, vocabulary, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def fast(folder):
    return CLIPTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="module")
def slow(folder):
    return CLIPTokenizer.from_pretrained(folder)


def test_start_and_end_of_text_are_the_last_two_ids():
    ids = vocabulary(read_merges())
    assert sorted(ids, key=ids.__getitem__)[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    assert sorted(ids.values()) == list(range(1026))


@pytest.mark.parametrize(("word", "clip_id"), [("a", 320), ("the", 518), ("in", 530), ("of", 539)])
def test_common_words_have_the_ids_they_have_in_clip(fast, word, clip_id):
    assert fast(word).input_ids == [1024, clip_id, 1025]


@pytest.mark.parametrize("label", LABELS[::7], ids=lambda label: label.text)
def test_labels_survive_the_way_to_ids_and_back(fast, label):
    assert fast.decode(fast(label.text).input_ids, skip_special_tokens=True) == label.text


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=40))
@settings(max_examples=150, deadline=None)
def test_fast_and_slow_tokenizers_agree(fast, slow, text):
    # The slow tokenizer repairs text first, which the fast one leaves to its normaliser; lower-case words need neither.
    words = "".join(character for character in text.lower() if character.isascii())
    assert fast(words).input_ids == slow(words).input_ids


def test_the_tokenizers_library_reads_the_same_ids(folder, fast):
    text = LABELS[0].text
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids == fast(text).input_ids
