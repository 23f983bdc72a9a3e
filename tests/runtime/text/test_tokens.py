"""Token ids are those of transformers' CLIPTokenizer, for any text and for both vocabularies in the tree."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer, CLIPTokenizerFast
from transformers.models.bert.tokenization_bert import BasicTokenizer

from helpers.bundles import copy_bundle, reseal
from helpers.checkpoints import clip_tokenizer
from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.errors import LabelsError
from xclip_runtime.text.encoder import TextEncoder

MOTION_DEMO = Path(__file__).parents[3] / "export/motion_demo/checkpoint"
COUNT = 4000

WORDS = [
    *(Path(__file__).parents[2] / "data/varied_words.txt").read_text(encoding="utf-8").split("\n"),
    # What no editor shows.
    *("\u200b", "\u200d", "\u00ad", "\ufeff", "\ufffd", "\u202e", "\x00", "\x07", "\x1b", "\x7f", "\u0085"),
]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\x0b", "\x0c", ""]


def random_character(rng):
    while True:
        code = rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x250, 0x3000), rng.randrange(0x110000)])
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def varied_texts(count=COUNT, seed=7):
    """Empty, short, long and over-long texts of all scripts, made of words, of characters, and of both."""
    rng = random.Random(seed)
    texts = ["", " ", "\n", "\t \u3000"]
    while len(texts) < count:
        length = rng.choice([1, 2, 3, 5, 8, 13, 40])
        pieces = (
            rng.choice(WORDS) if rng.random() < 0.7 else "".join(random_character(rng) for _ in range(rng.randrange(9)))
            for _ in range(length)
        )
        texts.append("".join(piece + rng.choice(SPACES) for piece in pieces))
    return texts


TEXTS = varied_texts()


@pytest.fixture(scope="module", params=["motion-demo's vocabulary", "CLIP's vocabulary"])
def vocabulary(request, tmp_path_factory):
    """(our encoder, transformers' fast tokenizer, transformers' slow tokenizer)."""
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param.startswith("motion-demo"):
        fast, bundle = CLIPTokenizerFast.from_pretrained(MOTION_DEMO), DEMO_BUNDLE
    else:
        fast, bundle = clip_tokenizer(folder), copy_bundle(folder / "bundle")
        fast.backend_tokenizer.save(str(bundle / "tokenizer.json"))
        reseal(bundle)
    fast.save_pretrained(folder)
    slow = CLIPTokenizer.from_pretrained(folder)
    # As it is where ftfy is not installed.
    slow.fix_text, slow.nlp = None, BasicTokenizer(strip_accents=False, do_split_on_punc=False)
    return TextEncoder(Bundle.open(bundle)), fast, slow


def test_varied_texts_have_the_ids_of_transformers(vocabulary):
    encoder, fast, _ = vocabulary

    assert encoder.token_ids(TEXTS, truncate=True) == fast(TEXTS, truncation=True, max_length=77)["input_ids"]


def without_what_the_slow_tokenizer_does_otherwise(text):
    """Leave out what transformers' own two tokenizers do not agree on.

    The slow one drops invisible characters, splits Chinese, knows the sigma that ends a word, takes special tokens in
    capitals for words, and the combining iota for no letter. Ours is the fast one, which transformers loads by default.
    """

    def alike(character):
        return character in "\t\n\r" or not (
            unicodedata.category(character) in {"Cc", "Cf", "Cn", "Co"}
            or unicodedata.name(character, "").startswith("CJK ")
            or character in "\ufffdΣ\u0345"
        )

    return "".join(filter(alike, unicodedata.normalize("NFC", text))).replace("<|ENDOFTEXT|>", "")


def test_the_same_ids_come_from_the_tokenizer_written_in_python(vocabulary):
    encoder, _, slow = vocabulary
    texts = list(map(without_what_the_slow_tokenizer_does_otherwise, TEXTS))

    assert encoder.token_ids(texts, truncate=True) == [
        slow(t, truncation=True, max_length=77)["input_ids"] for t in texts
    ]


@given(text=st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_the_ids_of_transformers(vocabulary, text):
    encoder, fast, _ = vocabulary

    assert encoder.token_ids([text], truncate=True) == [fast(text, truncation=True, max_length=77)["input_ids"]]


def test_a_text_as_long_as_the_context_is_taken_and_one_token_more_is_refused(vocabulary):
    encoder, _, _ = vocabulary

    assert [len(row) for row in encoder.token_ids(["a " * 75])] == [77]
    with pytest.raises(LabelsError, match="has 78 tokens, the model reads at most 77: shorten it"):
        encoder.token_ids(["a", "a " * 76])


def test_a_text_that_is_cut_still_ends_with_the_end_of_text(vocabulary):
    encoder, fast, _ = vocabulary
    [row] = encoder.token_ids(["a " * 500], truncate=True)

    assert (len(row), row[-1]) == (77, fast.eos_token_id)


def test_half_a_character_is_refused():
    encoder = TextEncoder(Bundle.open(DEMO_BUNDLE))

    with pytest.raises(LabelsError, match="not valid Unicode"):
        encoder.token_ids(["caf\udce9"])
