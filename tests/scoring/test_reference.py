"""Percentile, typicality and flags by hand-worked cases, and the rate of false alarms by many draws."""

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.scoring.columns import COLUMNS, FLAG_BY, default_ranking
from tfcq.scoring.reference import Reference, numbers_of


def rows(*bits, complexity=1.0):
    return [{"key": str(n), "bits_per_dim": value, "complexity": complexity} for n, value in enumerate(bits)]


def test_what_follows_from_held_out_images_by_hand():
    reference = Reference([*rows(1.0, 2.0, 2.0, 5.0), {"key": "broken", "unfit": "why"}], "bits_per_dim")
    assert reference.count == 4
    # mean 2.5; deviation sqrt((2.25 + 0.25 + 0.25 + 6.25) / 3) = sqrt(3)
    for bits, typicality, percentile, p_value in (
        (2.0, 0.5 / 3**0.5, 50.0, 4 / 5),  # one below and two equal, three as high or higher
        (0.0, 2.5 / 3**0.5, 0.0, 5 / 5),
        (3.0, 0.5 / 3**0.5, 75.0, 2 / 5),
        (5.0, 2.5 / 3**0.5, 87.5, 2 / 5),
        (6.0, 3.5 / 3**0.5, 100.0, 1 / 5),
    ):
        (row,) = rows(bits)
        full = reference.complete(row, p_value)
        assert full["typicality"] == pytest.approx(typicality, rel=1e-12) and full["percentile"] == percentile
        assert full["flagged"] and not reference.complete(row, 0.99 * p_value)["flagged"]
        assert full["complexity_corrected"] == bits - 1.0


def test_by_typicality_either_side_is_unusual():
    reference = Reference(rows(1.0, 2.0, 3.0, 4.0, 5.0), "typicality")
    low, middle, high = (reference.complete(row, 0.2) for row in rows(-9.0, 3.0, 15.0))
    assert low["typicality"] == high["typicality"] == pytest.approx(12.0 / 2.5**0.5)
    # With the image itself the means are 1, 3 and 5; from 1 the others are 0 to 4 away, and -9 is 10.
    assert (low["percentile"], middle["percentile"], high["percentile"]) == (100.0, 10.0, 100.0)
    assert low["flagged"] and high["flagged"] and not middle["flagged"]
    # Of another 5 the mean of all is 10 / 3: 2, 3 and 4 are nearer, and 5 is as far; from 3, without it, 1 would be as far, too.
    (row,) = rows(5.0)
    assert reference.percentile_and_p_value(row) == (70.0, 3 / 6)


def test_a_density_of_latents_is_unusual_where_it_is_low():
    held_out = [{"key": "a", "latent_log_prob": value, "complexity": 1.0} for value in (-3.0, -1.0, 2.0)]
    reference = Reference(held_out, "latent_log_prob")
    full = reference.complete({"key": "b", "latent_log_prob": -9.0, "complexity": 1.0}, 0.25)
    assert (full["percentile"], full["flagged"]) == (100.0, True) and "typicality" not in full
    assert reference.complete({"key": "b", "latent_log_prob": 9.0, "complexity": 1.0}, 0.25)["percentile"] == 0.0


def test_what_is_not_a_number_is_as_unusual_as_can_be():
    reference = Reference(rows(1.0, 2.0, 3.0), "bits_per_dim")
    (row,) = rows(float("nan"))
    assert reference.complete(row, 0.25) | {"typicality": 0, "bits_per_dim": 0, "complexity_corrected": 0} == {
        **{"key": "0", "bits_per_dim": 0, "complexity": 1.0, "complexity_corrected": 0, "typicality": 0},
        **{"percentile": 100.0, "flagged": True},
    }


@pytest.mark.parametrize("held_out, message", [
    (rows(1.0), "expected at least two images that can be used, received 1"),
    ([*rows(1.0), {"key": "x", "unfit": "broken"}], "received 1"),
    (rows(1.0, float("nan")), "expected finite numbers in bits_per_dim"),
    (rows(1.0, float("inf")), "expected finite numbers in bits_per_dim"),
    (rows(1.0, 1.0), "expected images whose bits_per_dim differ, received equal ones"),
])  # fmt: skip
def test_held_out_images_of_no_use_are_refused(held_out, message):
    with pytest.raises(UserError, match=message):
        Reference(held_out, "bits_per_dim")


@pytest.mark.parametrize("flag_by", ["bits_per_dim", "typicality"])
@pytest.mark.parametrize(("count", "rate"), [(4, 0.2), (19, 0.05), (19, 0.3)])
def test_no_more_false_alarms_than_asked_for(count, rate, flag_by):
    """Of images drawn as the held-out ones were, on average over both; (1 + count) rate is whole, so that the rate is exact."""
    random, draws = np.random.RandomState(0), 4000
    flagged = 0
    for values in random.standard_gamma(2.0, (draws, count + 1)):
        flagged += Reference(rows(*values[1:]), flag_by).complete(*rows(values[0]), rate)["flagged"]
    assert abs(flagged / draws - rate) < 4 * (rate * (1 - rate) / draws) ** 0.5


def test_every_ranking_has_a_column_and_a_default():
    assert set(FLAG_BY) <= set(COLUMNS) and COLUMNS["latent_log_prob"].unusual == -1
    assert default_ranking(["bits_per_dim", "reconstruction_error", "complexity_corrected"]) == "complexity_corrected"
    assert default_ranking(["latent_log_prob", "reconstruction_error", "energy"]) == "reconstruction_error"
    assert numbers_of({"energy": 1.0, "complexity": 2.0}) == {"energy": 1.0, "complexity": 2.0}
