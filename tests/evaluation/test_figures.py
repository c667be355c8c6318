"""Figures of reports: what they show, what they say that they do not, and what their axes are."""

import numpy as np
import pytest

from tfcq.evaluation import figures, training_curves


def drawn(chart):
    picture = chart.picture()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and len(np.unique(picture)) > 20
    return picture


def test_a_curve_is_cut_where_single_values_would_flatten_it_and_that_is_told():
    steps, values = np.arange(100), np.concatenate([[1e6, 5e5], np.linspace(2.0, 1.0, 98)])
    chart = figures.lines({"train": (steps, values)}, "step", "nats", "a loss", shown=0.95)
    assert chart.y_range[0] < 1.0 and 1.9 < chart.y_range[1] < 3.0
    above = int((values > chart.y_range[1]).sum())
    assert above >= 2 and chart.hidden == f"Not shown: {above} of 100 values above this range, up to 1e+06."
    whole = figures.lines({"train": (steps, values)}, "step", "nats", "a loss")
    assert not whole.hidden and whole.y_range[1] > 1e6
    # What is told is in the picture, too.
    silent = figures.Chart(chart.curves, "step", "nats", "a loss", y_range=chart.y_range)
    assert (drawn(chart)[:60] != drawn(silent)[:60]).any()


def test_values_that_flatten_nothing_are_shown():
    values = np.concatenate([[1.5], np.linspace(1.0, 0.0, 99)])
    chart = figures.lines({"train": (np.arange(100), values)}, "step", "nats", "a loss", shown=0.95)
    assert not chart.hidden and chart.y_range[1] > 1.5


def test_values_that_are_not_finite_are_told():
    chart = figures.lines({"a": ([0, 1, 2], [1.0, np.nan, np.inf]), "b": ([0], [2.0])}, "step", "nats", "a loss")
    assert chart.hidden == "Not shown: 2 of 4 values, which are not finite."
    drawn(chart)
    nothing = figures.lines({"a": ([0], [np.nan])}, "step", "nats", "a loss")
    assert nothing.y_range is None and nothing.hidden
    drawn(nothing)


def test_precision_and_recall_of_real_images_is_a_dashed_curve_beside_the_models():
    curve = {"precision": np.array([0.0, 0.5]), "recall": np.array([0.4, 0.0])}
    real = {"precision": np.array([0.0, 1.0]), "recall": np.array([1.0, 0.0])}
    chart = figures.prd_curves({"model": curve, "real": real}, real=["real"])
    assert [*chart.curves] == ["model", "real"] and [*chart.dashed] == ["real"]
    np.testing.assert_array_equal(chart.curves["real"], [real["recall"], real["precision"]])
    assert chart.x_label.startswith("recall") and chart.y_label.startswith("precision")
    assert (drawn(chart) != drawn(figures.prd_curves({"model": curve, "real": real}))).any()


def test_a_histogram_is_a_density_and_says_its_means():
    values = {"digits": np.array([1.0, 1.0, 2.0]), "photo_patches": np.array([3.0, 4.0])}
    chart = figures.histogram(values, "bits/dim")
    for label, (edges, heights) in chart.curves.items():
        assert len(edges) == len(heights) + 1 and (heights * np.diff(edges)).sum() == pytest.approx(1.0), label
    assert chart.notes == {"digits": ": mean 1.333", "photo_patches": ": mean 3.500"} and chart.x_label == "bits/dim"
    drawn(chart)


@pytest.mark.parametrize(
    ("title", "label"),
    [
        ("elbo_bits_per_dim", "bits/dim (lower is better)"),
        ("latent_log_prob", "log p(latents), nats (higher is better)"),
        ("generator_loss", "loss (lower is better)"),
        ("discriminator_gradient_norm", "norm of the gradient"),
        ("something_else", "something else"),
    ],
)
def test_the_axes_of_training_have_names_and_units(title, label):
    chart = training_curves.chart(title, {"train": (np.arange(3), np.arange(3.0))})
    assert (chart.x_label, chart.y_label, chart.title) == ("step", label, title)
