"""The model card, without an export; that of one: test_export.py."""

import re

import pytest

from tfcq.config import Config
from tfcq.exporting import card


def test_a_card_of_an_unmeasured_model_says_so():
    facts = {"description": "d", "image_shape": [8, 8, 1]}
    text = card.model_card("cqf", "exported", Config(), {}, facts, [], 0, [], False)
    assert "Nothing was measured." in text


@pytest.mark.parametrize("steps, said, shown", [
    ((3, 7, 7, 9), "\nAt step 7, that of this model:\n", ["2"]),  # the last of its own step, whatever was measured later
    ((3, 9), "\nNothing was measured at step 7, that of this model; the last numbers are of other steps (3, 9).\n", []),
    ((None,), "\nNothing was measured at step 7, that of this model; the last numbers are of other steps (unknown).\n", []),
])
def test_the_card_shows_the_numbers_of_the_exported_step(steps, said, shown):
    rows = [{"step": step, "elbo": {"bits_per_dim": number}} for number, step in enumerate(steps)]
    text = card.model_card("cqf", "exported", Config(), {}, {"description": "d", "image_shape": [8, 8, 1]}, rows, 7, [], False)
    assert said in text and re.findall('"bits_per_dim": (.*)', text) == shown
