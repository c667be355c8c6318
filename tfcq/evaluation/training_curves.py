"""The curves of a run for its report: what training and validation wrote to TensorBoard, in figures."""

from __future__ import annotations

import os

import numpy as np

from tfcq import workdir as workdirs
from tfcq.evaluation.figures import Chart, lines
from tfcq.machine import paths

_BALANCE_FIGURE = "balance"
_BALANCE = {
    "kl_real": "KL of real images, nats",
    "kl_reconstructed": "KL of reconstructions",
    "kl_sampled": "KL of samples",
    "margin": "margin",
    "balance": "balance of push and pull",
    "cross_entropy": "the discriminator's cross-entropy, nats (chance level: 1.39)",
    "accuracy_real": "its accuracy on real images",
    "accuracy_generated": "its accuracy on generated images",
}
"""{term that an introspective encoder (Huang et al. 2018, Fig. 5) or a discriminator logs: label of its curve}; one figure."""

_MEASURES = ("elbo_bits_per_dim", "first_stage_elbo_bits_per_dim", "latent_log_prob", "reconstruction_error")
"""Tags that training and validation have in common: the two curves are in one figure."""

_AXES = {
    "elbo_bits_per_dim": "bits/dim (lower is better)",
    "first_stage_elbo_bits_per_dim": "bits/dim of the first stage (lower is better)",
    "latent_log_prob": "log p(latents), nats (higher is better)",
    "reconstruction_error": "squares of pixels in [0, 1], summed (lower is better)",
    "squared_error": "squared error of reconstructions (lower is better)",
    "loss": "loss (lower is better)",
    "gradient_norm": "norm of the gradient",
    _BALANCE_FIGURE: "each in its unit: see the legend",
}
"""{title of a figure, or what it ends with: label of its vertical axis}."""


def training_curves(
    workdir: str | os.PathLike, trained_bound: str = "elbo"
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """{title: {label: (steps, values)}} of what training wrote to TensorBoard; empty if that is gone.

    Each curve has one value per step, in the order of the steps: of a step that was written twice, the later value.

    Args:
        workdir: folder of the run.
        trained_bound: `GenerativeModel.trained_bound`; the meaning of training's bits/dim in a run of an earlier version.
    """
    curves: dict[str, dict[str, list[workdirs.Point]]] = {}
    for split in ("train", "validation"):
        for name, points in workdirs.read_scalars(paths.as_path(workdir) / "tensorboard" / split).items():
            title, label = _curve_of(name, split, trained_bound)
            if title:
                # A run that an earlier version began may have the curve under two names.
                curves.setdefault(title, {}).setdefault(label, []).extend(points)
    return {title: {label: _series(points) for label, points in series.items()} for title, series in curves.items()}


def chart(title: str, series: dict[str, tuple[np.ndarray, np.ndarray]]) -> Chart:
    """The chart of a figure of `training_curves`, with units and better directions on its axes."""
    term = title.rpartition("_loss")[1] or title.rpartition("_gradient_norm")[1]
    y_label = _AXES.get(term.lstrip("_") or title, title.replace("_", " "))
    # The first steps of a loss would flatten the rest of the curve.
    return lines(series, "step", y_label, title, shown=1.0 if title == _BALANCE_FIGURE else 0.95)


def _series(points):
    """(steps, values), arrays in the order of the steps, of a list of `Point`; the latest value of each step."""
    latest = {point.step: point.value for point in sorted(points, key=lambda point: point.time)}
    steps = sorted(latest)
    return np.array(steps), np.array([latest[step] for step in steps])


def _curve_of(tag, split, trained_bound):
    """(title of the figure, label of the curve) of a scalar; (None, None): it is in no figure."""
    player, _, term = tag.rpartition("/")
    if term in _BALANCE and player in ("encoder", "discriminator"):
        return _BALANCE_FIGURE, _BALANCE[term]
    if term == "squared_error":  # of reconstructions, in training (Huang et al. 2018, Fig. 5, beside the balance)
        return term, player
    if term in ("loss", "gradient_norm"):  # each player has a scale of its own
        return f"{player}_{term}", split
    if term == "bits_per_dim":  # the name in earlier versions
        return f"{trained_bound if split == 'train' else 'elbo'}_bits_per_dim", split
    return (tag, split) if tag in _MEASURES else (None, None)
