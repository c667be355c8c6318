"""report.md and report.html of a workdir: every number with its protocol, and the pictures, which TensorBoard has, too.

It is made from the numbers of an evaluation (`row`) and the data that it kept for figures (`drawn`):

    likelihoods       {"elbo" | "bits_per_dim": {data set: bits/dim [N]}}
    prd_curve         {"precision": [A], "recall": [A]}, and of real images "real_precision", "real_recall"
    near_copies       `tfcq.evaluation.near_copies.NearCopies`
    nearest           (generated uint8 [n, H, W, C], {space: their nearest training images uint8 [k n, H, W, C]},
                      among how many training images)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcq import images as units
from tfcq import workdir as workdirs
from tfcq.config.evaluation import EvaluationConfig
from tfcq.evaluation import figures, near_copies, page, training_curves, web_page
from tfcq.evaluation.pictures import Pictures
from tfcq.grids import grid
from tfcq.machine import paths
from tfcq.machine.files import replacing, write_text
from tfcq.metrics import registry

if TYPE_CHECKING:
    from tfcq.data import ImageDataset
    from tfcq.models.base import GenerativeModel

FOLDER = "report"
CURVES = "curves.npz"
"""File beside the pictures with the curves that --compare draws, and the time of the row that they belong to."""

REAL = "real images in their place"
"""The label of the curve of precision and recall of other real images in the place of generated ones."""

_GRID = 64
_NOISE_ROWS = 8
def write_report(
    workdir: str | os.PathLike,
    model: GenerativeModel,
    dataset: ImageDataset,
    row: dict,
    drawn: dict[str, Any],
    config: EvaluationConfig,
) -> paths.AnyPath:
    """Writes report.md, report.html, report/*.png and TensorBoard's tensorboard/evaluation.

    Args:
        workdir: folder of the run.
        model: its model.
        dataset: its `ImageDataset`.
        row: the recorded numbers.
        drawn: the data of figures, as the module's docstring says.
        config: `EvaluationConfig`.

    Returns:
        The path of report.md.
    """
    folder = paths.as_path(workdir)
    shown = _figures(folder, model, dataset, drawn, config)
    chosen = f", chosen by {row['chosen_by']}" if "chosen_by" in row else ""
    data = f"Data: {dataset.description}. Checkpoint: {row['checkpoint']}{chosen}. Evaluated {row['time']}."
    head: list[page.Block] = [page.Heading(f"{model.config_of_run.model}, step {row['step']}", 1), page.Text(data)]
    path = write_page(folder, head, row, drawn, shown)
    _to_tensorboard(folder, row, shown)
    return path


def write_page(
    folder: paths.AnyPath, head: Sequence[page.Block], row: dict, drawn: dict[str, Any], shown: Sequence[page.Figure]
) -> paths.AnyPath:
    """Writes report.md, report.html, report/*.png, the list of near copies and the curves that --compare draws.

    Args:
        folder: where.
        head: what the page begins with, before the numbers.
        row, drawn: as for `write_report`.
        shown: the figures.

    Returns:
        The path of report.md.
    """
    for figure in shown:
        units.write_png(folder / FOLDER / f"{figure.name}.png", figure.picture)
    names = {figure.name for figure in shown}
    for old in (folder / FOLDER).glob("*.png"):
        if old.stem not in names:
            old.unlink(missing_ok=True)  # from an evaluation whose numbers are not in this report
    curves = {f"prd_{key}": value for key, value in drawn.get("prd_curve", {}).items()}
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with replacing(folder / FOLDER / CURVES) as file:
        np.savez(file, time=row.get("time", ""), **curves)
    near_copies.write(folder / FOLDER, drawn)
    copies = near_copies.blocks(drawn, FOLDER)
    blocks = [*head, *_numbers(row), page.Heading("Pictures"), *shown, *copies, *_protocol(row)]
    write_text(folder / "report.html", web_page.page(blocks))
    path = folder / "report.md"
    write_text(path, page.markdown(blocks, FOLDER))
    return path


def _figures(folder, model, dataset, drawn, config):
    artist, found = Pictures(model), []
    if "sample" in model.abilities:
        caption = f"Samples, seeds ({config.seed}, 0) to ({config.seed}, {_GRID - 1}), temperature {config.temperature:g}."
        if names := model.class_names:
            rows = f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
            caption = f"Samples, a row a class: {rows}; seeds ({config.seed}, i) in column i, temperature {config.temperature:g}."
        found.append(page.Figure("samples", artist.prior_grid(_GRID, config.seed, config.temperature), caption))
    real = dataset.images(config.split, range(min(_GRID, dataset.num_images(config.split))))
    found.append(page.Figure("real_images", grid(real), f"The first {len(real)} {config.split} images, to compare samples with."))
    held_out = real[: _GRID // 2]
    rebuilt = artist.reconstruction_grid_of(dataset, config.split, len(held_out), config.seed)
    if rebuilt is not None:
        given = "" if "reconstruct" in model.abilities else " given its class"
        found.append(page.Figure("reconstructions", rebuilt, f"Pairs of a {config.split} image and its reconstruction{given}."))
    if "generative_reconstruct" in model.abilities:
        caption = f"Pairs of a {config.split} image and what the first of two stages keeps of it, the rest generated."
        picture = artist.reconstruction_grid(held_out, config.seed, "generative_reconstruct")
        found.append(page.Figure("generative_reconstructions", picture, caption))
    if "super_resolve" in model.abilities:
        caption = f"Rows of a {config.split} image, its compressed image, and images drawn given that."
        found.append(page.Figure("super_resolutions", artist.super_resolution_grid(held_out[:8], seed=config.seed), caption))
    if {"encode", "decode"} <= model.abilities and len(held_out) >= 2:
        caption = (
            f"Rows from one {config.split} image to another, straight in the space of the noise that latents are made of, or "
            "of the latents where they are made of none."
        )
        found.append(page.Figure("interpolations", artist.interpolation_grid(held_out[:16], seed=config.seed), caption))
    if "interpolate_noise" in model.abilities:
        caption = (
            f"Rows from one sample to another, straight through the noise that they are made of; row i from seed "
            f"({config.seed}, 2i) to ({config.seed}, 2i + 1), temperature {config.temperature:g}."
        )
        picture = artist.noise_interpolation_grid(_NOISE_ROWS, seed=config.seed, temperature=config.temperature)
        found.append(page.Figure("noise_interpolations", picture, caption))
    found += [*near_copies.figures(drawn), *nearest_figures(drawn, dataset)]
    for name, values in drawn.get("likelihoods", {}).items():
        caption = f"{name}, {config.split} images, one value an image; lower is likelier."
        found.append(page.Figure.of(f"histogram_{name}", figures.histogram(values, "bits/dim (lower is likelier)"), caption))
    found += prd_figures(drawn, "model")
    for name, series in training_curves.training_curves(folder, model.trained_bound).items():
        found.append(page.Figure.of(f"training_{name}", training_curves.chart(name, series), f"Training: {name}."))
    return found


def nearest_figures(drawn: dict[str, Any], dataset: ImageDataset) -> list[page.Figure]:
    """Generated images beside the nearest training images of `dataset`; none if they were not looked for."""
    if "nearest" not in drawn:
        return []
    (generated, spaces, searched), found = drawn["nearest"], []
    for space, nearest in spaces.items():
        nearest = nearest.reshape(len(generated), -1, *generated.shape[1:])
        rows = np.concatenate([generated[:, None], nearest], axis=1)
        caption = nearest_caption(nearest.shape[1], space, searched, dataset.num_images("train"))
        labels = ["sample", "nearest", *[""] * (nearest.shape[1] - 1)]
        picture = grid(rows.reshape(-1, *generated.shape[1:]), 4 * rows.shape[1], labels)
        found.append(page.Figure(f"nearest_neighbours_{space.split()[0]}", picture, caption))
    return found


def prd_figures(drawn: dict[str, Any], label: str) -> list[page.Figure]:
    """The curve of precision and recall, which is called `label`, and that of real images; none if it was not measured."""
    if "prd_curve" not in drawn:
        return []
    curves, caption = {label: drawn["prd_curve"]}, "Precision and recall for distributions (Sajjadi et al. 2018)."
    if "real_precision" in drawn["prd_curve"]:
        curves[REAL] = real_curve(drawn["prd_curve"])
        caption += " The dashed curve is of other real images in the place of the generated ones: about what a perfect model has."
    return [page.Figure.of("prd", figures.prd_curves(curves, real=[REAL]), caption)]


def real_curve(curve: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The curve of real images that a curve of precision and recall has with it."""
    return {name: curve[f"real_{name}"] for name in ("precision", "recall")}


def nearest_caption(count: int, space: str, searched: int, total: int) -> str:
    """The caption of generated images beside the `count` nearest of the first `searched` of `total` training images."""
    among = f"all {total:,} training images" if searched == total else f"the first {searched:,} of {total:,} training images"
    more = "" if searched == total else " (--num_train_images)"
    return f"Generated images, each followed by its {count} nearest in {space} among {among}{more}."


def events_folder(workdir: str | os.PathLike, split: str) -> paths.AnyPath:
    """The folder of TensorBoard for evaluations on a split: validation and test images have separate curves."""
    return paths.as_path(workdir) / "tensorboard" / ("evaluation" if split == "test" else f"evaluation_{split}")


def _to_tensorboard(folder, row, shown):
    writer = workdirs.event_writer(events_folder(folder, row["split"]))
    with writer.as_default(row["step"]):
        for name, entry in row.items():
            if isinstance(entry, dict):
                for scalar, value in scalars(name, entry).items():
                    tf.summary.scalar(workdirs.tag_of(scalar), value)
        for figure in shown:
            tf.summary.image(f"report/{figure.name}", figure.picture[None], description=figure.caption)
    writer.close()


def scalars(name: str, entry: dict) -> dict[str, float]:
    """{name: value} of an entry of metrics.json for TensorBoard, with the names of training for the same quantity.

    A name has one unit and one estimator: that of an importance-weighted estimate names K, that of other data names the data.
    """
    if "bits_per_dim" not in entry:
        return {name + of_reference(entry): main_value(entry)[0]}
    other = f" of {entry['dataset']}" if name.endswith("_other") else ""
    if "num_importance_samples" in entry:
        return {f"importance_weighted_bits_per_dim/K={entry['num_importance_samples']}{other}": entry["bits_per_dim"]}
    terms = {f"elbo/{term}{other}": nats for term, nats in entry.get("terms", {}).items()}
    return {f"elbo_bits_per_dim{other}": entry["bits_per_dim"], f"elbo_nats{other}": entry["nats"]} | terms


def of_reference(entry: dict) -> str:
    """What the name of a number of samples ends with if they were compared with another data set than the run's; else ""."""
    return f" of {entry['reference_dataset']}" if "reference_dataset" in entry else ""


def unit_of(name: str, entry: dict) -> str:
    """Unit and estimator of the `main_value` of an entry of that name, in words; "" if the number has no unit."""
    if "bits_per_dim" in entry:
        count = entry.get("num_importance_samples")
        return "bits/dim, bound of one draw" if count is None else f"bits/dim, {count} importance-weighted draws"
    return registry.unit_of(name)


def main_value(entry: dict) -> tuple[float, float | None, str]:
    """(the number, its uncertainty or None, the kind of uncertainty in words) of an entry of metrics.json."""
    if "bits_per_dim" in entry:
        return entry["bits_per_dim"], entry["bits_per_dim_standard_error"], "standard error over images"
    for key, meaning in (
        ("standard_deviation_over_seeds", "standard deviation over seeds"),
        ("standard_error", "standard error"),
        ("standard_deviation_over_splits", "standard deviation over splits"),
    ):
        if key in entry:
            return entry["value"], entry[key], meaning
    return entry["value"], None, ""


def _terms(name, entry):
    """A table of the terms of a bound."""
    rows = [(term, f"{nats:.5g}", f"{entry['terms_bits_per_dim'][term]:.5g}") for term, nats in entry["terms"].items()]
    return page.Table((f"terms of {name}, means over the images", "nats", "bits/dim"), rows)


def _recalls(name, entry):
    """A table of how many test images of each class classifiers find."""
    rows = [
        (of_class, str(entry["num_of_class"][of_class]), f"{recall:.3f}", f"{entry['real_recall'][of_class]:.3f}")
        for of_class, recall in entry["recall"].items()
    ]
    headings = (f"class, {name}", "test images", "recall, trained on generated images", "recall, trained on real ones")
    return page.Table(headings, rows)


def _by_class(numbers):
    """A table of numbers by class, {name of a number: {class: {"value", "num_images"}}}."""
    classes = dict.fromkeys(name for means in numbers.values() for name in means)
    counts = {name: str(next(means[name]["num_images"] for means in numbers.values() if name in means)) for name in classes}
    rows = [
        (name, counts[name], *(f"{means[name]['value']:.5g}" if name in means else "" for means in numbers.values()))
        for name in classes
    ]
    headings = ("class", "images", *(f"{name}, bits/dim" if name in ("elbo", "bits_per_dim") else name for name in numbers))
    return page.Table(headings, rows)


def _numbers(row):
    """The table of numbers, those of the bounds' terms, and notes."""
    rows = []
    entries = {name: entry for name, entry in row.items() if isinstance(entry, dict)}
    for name, entry in entries.items():
        value, error, _ = main_value(entry)
        counts = f"{entry.get('num_generated', '-')} / {entry['num_real'] if 'num_real' in entry else entry['num_images']}"
        uncertainty = "" if error is None else f"{error:.2g}"
        real = f"{entry['real']:.5g}" if "real" in entry else ""
        named, unit, better = name + of_reference(entry), unit_of(name, entry), registry.direction_of(name)
        rows.append((named, f"{value:.5g}", uncertainty, unit, better, real, counts, str(entry["seconds"])))
    headings = ("number", "value", "+-", "unit", "better", "real images in their place", "generated / real images", "seconds")
    yield page.Table(headings, rows)
    for name, entry in entries.items():
        if "terms" in entry:
            yield _terms(name, entry)
        if "recall" in entry:
            yield _recalls(name, entry)
    if of_classes := {name: entry["by_class"] for name, entry in entries.items() if "by_class" in entry}:
        yield _by_class(of_classes)
    if notes := dict.fromkeys(note for entry in entries.values() for note in entry.get("notes", ())):
        yield page.Bullets([f"Note: {note}." for note in notes])


def _protocol(row):
    """What each number means, and how it was measured."""
    yield page.Heading("Protocol")
    yield page.Text("What each number means, and how it was measured; all of it is in metrics.json too.")
    for name, entry in row.items():
        if not isinstance(entry, dict):
            continue
        yield page.Heading(name, 3)
        _, error, meaning = main_value(entry)
        facts = [] if error is None else [f"+-: {meaning}"]
        facts += [
            f"{key}: {json.dumps(value) if isinstance(value, (dict, list)) else value}"
            for key, value in entry.items()
            if key not in ("value", "notes", "by_class")
        ]
        yield page.Bullets(facts)
