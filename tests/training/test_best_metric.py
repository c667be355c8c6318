"""--best_metric: which numbers it takes, where a row has them, which values are better."""

import re
from types import SimpleNamespace

import pytest

from tfcq.config import TrainingConfig
from tfcq.config.training import BEST_METRICS
from tfcq.engine.best import ELBO
from tfcq.errors import UserError
from tfcq.metrics import registry
from tfcq.training.best import BestNumber


@pytest.mark.parametrize("number", BEST_METRICS)
def test_every_number_is_found_in_a_row_with_its_direction(number):
    metric = registry.metric_of(number)
    own = registry.INCEPTION_NAMES.get(number, number)
    extractor = SimpleNamespace(name="inception" if number != own else "pixels", is_inception=number != own)
    entries = {"elbo": {"bits_per_dim": 3.5}, "ms_ssim": {"value": 0.5}}
    for place, name in enumerate(registry.LATENT_LIKELIHOODS + registry.OF_SAMPLES):
        for offset, each in enumerate(registry.numbers_of(name)):
            of_features = name not in (*registry.LATENT_LIKELIHOODS, "ms_ssim", "sliced_wasserstein")
            recorded = registry.recorded_name(name, each, extractor) if of_features else each
            entries[recorded] = {"value": 10.0 * place + offset, "num_generated": 24, "checksum": "abc", "seconds": 0.1}
            if each == own:
                expected = 10.0 * place + offset, recorded
    value, criterion = BestNumber(number).of({"time": "now", "step": 3, "split": "validation"} | entries)
    if number == "elbo":
        assert (value, criterion) == (3.5, ELBO)
    else:
        assert (value, criterion.number) == expected
        assert criterion.protocol == {"num_generated": 24, "checksum": "abc"}
    meaning = registry.numbers_of(metric).get(own, registry.Number()).meaning or registry.TABLE[metric].meaning
    assert criterion.better in ("lower", "higher") and re.search(rf"\b{criterion.better}\b.* (is|are) (better|likelier)", meaning)
    assert BestNumber(number).of({"step": 3, "other": {"value": 1.0}}) is None
    if "num_generated" in entries[criterion.number]:  # numbers on different splits do not compare
        on = {
            split: BestNumber(number).of({criterion.number: entries[criterion.number] | {"split": split}})[1]
            for split in ("validation", "train")
        }
        assert on["validation"] == criterion or number == "elbo"
        assert on["train"] != criterion or number == "elbo"


def test_numbers_without_a_direction_and_unknown_ones_are_refused_with_those_possible():
    for name in ("ms_ssim", "memorisation", "bits_per_dim", "prd", "fd", ""):
        with pytest.raises(UserError, match=f"^best_metric: expected one of elbo, .*frechet_distance, .*kid, received '{name}'"):
            TrainingConfig(best_metric=name)
    assert registry.better("ms_ssim") == registry.better("memorisation") == ""


def test_every_better_of_the_table_agrees_with_its_sentence():
    for name, line in registry.TABLE.items():
        for number, one in registry.numbers_of(name).items():
            meaning = one.meaning or line.meaning
            directions = [word for word in ("lower", "higher") if re.search(rf"\b{word}\b.* (is|are) (better|likelier)", meaning)]
            assert directions == [word for word in [registry.better(number)] if word], number
