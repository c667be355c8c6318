"""What the page says of scores; held-out images are scored once for a model."""

import math

import numpy as np
import pytest
from numpy_model import SHAPE, Model
from PIL import Image

from tfcq.errors import UserError
from tfcq.playground.scores import HeldOut, alone, held_out

ROWS = [{"key": str(number), "log_prob": -number, "bits_per_dim": float(number), "complexity": 1.0} for number in range(1, 9)]


def test_percentiles_and_what_they_mean():
    score = HeldOut(ROWS).score({"key": "a", "log_prob": -6.5, "bits_per_dim": 6.5, "complexity": 3.0}, 64)
    assert score.numbers == {
        "log_prob": -6.5,
        "bits_per_dim": 6.5,
        "complexity": 3.0,
        "complexity_corrected": 3.5,
        "typicality": pytest.approx((6.5 - 4.5) / np.std(range(1, 9), ddof=1)),
    }
    # Of 1 .. 8, 6 are below 6.5; corrected they are 0 .. 7, of which 4 are below 3.5. By typicality the mean is that of all
    # nine, 42.5 / 9 = 4.72: 6.5 is 1.78 away, nearer are 3, 4, 5 and 6.
    assert score.percentiles == {"bits_per_dim": 75.0, "complexity_corrected": 50.0, "typicality": 50.0} and score.count == 8
    text = score.text()
    assert text.startswith("### More unusual than 50 % of the 8 held-out images\n\nby `complexity_corrected`: ")
    assert "**6.500 bits/dim**: " in text and "each of the image's 64 values" in text
    assert "| bits_per_dim | 6.5 | 75 % | -log_prob / (D ln 2) |" in text and "| complexity | 3 |  | " in text


def test_the_ends_are_said_in_words():
    held = HeldOut(ROWS)
    for bits, expected in ((99.0, "More unusual than all of the 8 held-out"), (0.5, "More unusual than none of the 8 held-out")):
        assert expected in held.score({"log_prob": 0.0, "bits_per_dim": bits, "complexity": 1.0}, 64).text()


def test_without_held_out_images_there_is_no_percentile():
    text = alone({"key": "a", "latent_log_prob": -3.0, "reconstruction_error": 0.5, "complexity": 2.0}, 64).text()
    assert "unusual than all" not in text and "%" not in text and "bits/dim**" not in text
    assert "| reconstruction_error | 0.5 |  | " in text


def test_held_out_images_are_scored_once_for_each_model(make, tmp_path):
    (tmp_path / "held").mkdir()
    for value in range(10):
        image = Image.new("L", (8, 8), value)
        image.convert("RGB" if value % 2 else "L").save(tmp_path / "held" / f"{value}.png")
    data = {"dataset": f"folder:{tmp_path}/held"}

    def scored(model, most=500, kept=tmp_path / "kept"):
        playground = make(model)
        found = held_out(playground, "", data, most, kept)
        asked = sum(endpoint == "likelihood" for endpoint, _ in model.asked)
        image = np.full(SHAPE, 7, np.uint8)
        return found.score(playground.numbers_of(image), math.prod(SHAPE)), asked

    first, asked = scored(Model())
    assert asked == 1 and first.count == 10 and first.percentiles["bits_per_dim"] == 75.0  # 7 are below, one is equal
    again, asked = scored(Model())
    assert asked == 0 and again == first
    assert scored(Model(digest="1" * 32))[1] == 1 and len(list((tmp_path / "kept").iterdir())) == 2
    assert scored(Model(), most=4)[0].count == 4
    assert scored(Model(), kept=None)[1] == 1
    with pytest.raises(UserError, match="held_out: expected at least two images, received 1"):
        scored(Model(), most=1)
