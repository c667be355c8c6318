"""The model card, without an export; that of one: test_export.py."""

import re

import pytest

from tfcq.config import Config
from tfcq.exporting import card


def test_a_card_of_an_unmeasured_model_says_so():
    facts = {"description": "d", "image_shape": [8, 8, 1]}
    text = card.model_card("cqf", "exported", Config(), {}, facts, [], 0, [], False)
    assert "Nothing was measured." in text and "classes" not in text.partition("## Training")[0]


def test_a_card_says_the_numbers_of_classes():
    """By which an exported model is asked: it has no names."""
    classes = {"names": ["1", "cat"], "counts": [7, 5], "digest": ""}
    facts = {"description": "d", "image_shape": [8, 8, 1], "classes": classes}
    text = card.model_card("cqf", "exported", Config(), {}, facts, [], 0, [], False)
    assert "\n- classes, by number, with how many training images each has: 0: 1 (7), 1: cat (5)\n" in text


@pytest.mark.parametrize("steps, said, shown", [
    ((3, 7, 7, 9), "\nAt step 7, that of this model:\n", ["2"]),  # the last of its own step, whatever was measured later
    ((3, 9), "\nNothing was measured at step 7, that of this model; the last numbers are of other steps (3, 9).\n", []),
    ((None,), "\nNothing was measured at step 7, that of this model; the last numbers are of other steps (unknown).\n", []),
])
def test_the_card_shows_the_numbers_of_the_exported_step(steps, said, shown):
    rows = [{"step": step, "elbo": {"bits_per_dim": number}} for number, step in enumerate(steps)]
    text = card.model_card("cqf", "exported", Config(), {}, {"description": "d", "image_shape": [8, 8, 1]}, rows, 7, [], False)
    assert said in text and re.findall('"bits_per_dim": (.*)', text) == shown
