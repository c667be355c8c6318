"""report.md of a workdir: every number with its protocol, and the pictures, which are also written to TensorBoard.

It is made from the numbers of an evaluation (`row`) and the data that it kept for figures (`drawn`):

    likelihoods       {"elbo" | "bits_per_dim": {data set: bits/dim [N]}}
    prd_curve         {"precision": [A], "recall": [A]}
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
from tfcq.evaluation import figures
from tfcq.evaluation.pictures import Pictures
from tfcq.evaluation.tables import markdown_table
from tfcq.machine import paths
from tfcq.machine.files import replacing, write_text
from tfcq.metrics import registry

if TYPE_CHECKING:
    from tfcq.data import ImageDataset
    from tfcq.models.base import GenerativeModel

FOLDER = "report"
CURVES = "curves.npz"
"""File beside the pictures with the curves that --compare draws, and the time of the row that they belong to."""

_GRID = 64
_NOISE_ROWS = 8
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


def write_report(
    workdir: str | os.PathLike,
    model: GenerativeModel,
    dataset: ImageDataset,
    row: dict,
    drawn: dict[str, Any],
    config: EvaluationConfig,
) -> paths.AnyPath:
    """Writes report.md, report/*.png and TensorBoard's tensorboard/evaluation.

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
    pictures = _pictures(folder, model, dataset, drawn, config)
    chosen = f", chosen by {paths.markdown(row['chosen_by'])}" if "chosen_by" in row else ""
    data = f"Data: {paths.markdown(dataset.description)}. Checkpoint: {row['checkpoint']}{chosen}. Evaluated {row['time']}."
    path = write_page(folder, [f"# {model.config_of_run.model}, step {row['step']}", "", data], row, drawn, pictures)
    _to_tensorboard(folder, row, pictures)
    return path


def write_page(
    folder: paths.AnyPath, head: Sequence[str], row: dict, drawn: dict[str, Any], pictures: dict[str, tuple[np.ndarray, str]]
) -> paths.AnyPath:
    """Writes report.md, report/*.png and the curves that --compare draws.

    Args:
        folder: where.
        head: the lines of the page before the numbers.
        row, drawn: as for `write_report`.
        pictures: {name: (uint8 [H, W, C], caption)}.

    Returns:
        The path of report.md.
    """
    for name, (picture, _) in pictures.items():
        units.write_png(folder / FOLDER / f"{name}.png", picture)
    for old in (folder / FOLDER).glob("*.png"):
        if old.stem not in pictures:
            old.unlink(missing_ok=True)  # from an evaluation whose numbers are not in this report
    curves = {f"prd_{key}": value for key, value in drawn.get("prd_curve", {}).items()}
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with replacing(folder / FOLDER / CURVES) as file:
        np.savez(file, time=row.get("time", ""), **curves)
    path = folder / "report.md"
    write_text(path, "\n".join([*head, "", *_lines(row, pictures)]))
    return path


def _pictures(folder, model, dataset, drawn, config):
    """{name: (uint8 [H, W, C], caption)}."""
    artist, found = Pictures(model), {}
    if "sample" in model.abilities:
        caption = f"Samples, seeds ({config.seed}, 0) to ({config.seed}, {_GRID - 1}), temperature {config.temperature:g}."
        found["samples"] = (artist.sample_grid(_GRID, config.seed, config.temperature), caption)
    held_out = dataset.images(config.split, range(min(_GRID // 2, dataset.num_images(config.split))))
    if "reconstruct" in model.abilities:
        caption = f"Pairs of a {config.split} image and its reconstruction."
        found["reconstructions"] = (artist.reconstruction_grid(held_out, config.seed), caption)
    if "generative_reconstruct" in model.abilities:
        caption = f"Pairs of a {config.split} image and what the first of two stages keeps of it, the rest generated."
        picture = artist.reconstruction_grid(held_out, config.seed, "generative_reconstruct")
        found["generative_reconstructions"] = (picture, caption)
    if "super_resolve" in model.abilities:
        caption = f"Rows of a {config.split} image, its compressed image, and images drawn given that."
        found["super_resolutions"] = (artist.super_resolution_grid(held_out[:8], seed=config.seed), caption)
    if {"encode", "decode"} <= model.abilities and len(held_out) >= 2:
        caption = (
            f"Rows from one {config.split} image to another, straight in the space of the noise that latents are made of, or "
            "of the latents where they are made of none."
        )
        found["interpolations"] = (artist.interpolation_grid(held_out[:16], seed=config.seed), caption)
    if "interpolate_noise" in model.abilities:
        caption = (
            f"Rows from one sample to another, straight through the noise that they are made of; row i from seed "
            f"({config.seed}, 2i) to ({config.seed}, 2i + 1), temperature {config.temperature:g}."
        )
        picture = artist.noise_interpolation_grid(_NOISE_ROWS, seed=config.seed, temperature=config.temperature)
        found["noise_interpolations"] = (picture, caption)
    found |= nearest_pictures(drawn, dataset)
    for name, values in drawn.get("likelihoods", {}).items():
        caption = f"{name}, {config.split} images, one value an image; lower is likelier."
        found[f"histogram_{name}"] = (figures.histogram(values, "bits/dim"), caption)
    found |= prd_picture(drawn, "model")
    for name, series in training_curves(folder, model.trained_bound).items():
        # The first steps of a loss would flatten the rest of the curve.
        picture = figures.lines(series, "step", name, shown=1.0 if name == _BALANCE_FIGURE else 0.95)
        found[f"training_{name}"] = (picture, f"Training: {name}.")
    return found


def nearest_pictures(drawn: dict[str, Any], dataset: ImageDataset) -> dict[str, tuple[np.ndarray, str]]:
    """Pictures of generated images beside the nearest training images of `dataset`; none if they were not looked for."""
    if "nearest" not in drawn:
        return {}
    (generated, spaces, searched), found = drawn["nearest"], {}
    for space, nearest in spaces.items():
        nearest = nearest.reshape(len(generated), -1, *generated.shape[1:])
        rows = np.concatenate([generated[:, None], nearest], axis=1)
        caption = nearest_caption(nearest.shape[1], space, searched, dataset.num_images("train"))
        name = f"nearest_neighbours_{space.split()[0]}"
        found[name] = (units.grid(rows.reshape(-1, *generated.shape[1:]), 4 * rows.shape[1]), caption)
    return found


def prd_picture(drawn: dict[str, Any], label: str) -> dict[str, tuple[np.ndarray, str]]:
    """The picture of the curve of precision and recall, which it calls `label`; none if it was not measured."""
    if "prd_curve" not in drawn:
        return {}
    caption = "Precision and recall for distributions (Sajjadi et al. 2018)."
    return {"prd": (figures.prd_curves({label: drawn["prd_curve"]}), caption)}


def nearest_caption(count: int, space: str, searched: int, total: int) -> str:
    """The caption of generated images beside the `count` nearest of the first `searched` of `total` training images."""
    among = f"all {total:,} training images" if searched == total else f"the first {searched:,} of {total:,} training images"
    more = "" if searched == total else " (--num_train_images)"
    return f"Generated images, each followed by its {count} nearest in {space} among {among}{more}."


def training_curves(
    workdir: str | os.PathLike, trained_bound: str = "elbo"
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """{title: {label: (steps, values)}} of what training wrote to TensorBoard; empty if that is gone.

    Each curve has one value per step, in the order of the steps: of a step that was written twice, the later value.

    Args:
        workdir: folder of the run.
        trained_bound: `GenerativeModel.trained_bound`; the meaning of training's bits/dim in a run of an earlier version.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: dict[str, dict[str, list[tuple]]] = {}
    for split in ("train", "validation"):
        folder = paths.as_path(workdir) / "tensorboard" / split
        if not any(folder.glob("*tfevents*")):
            continue
        events = EventAccumulator(str(folder), size_guidance={"tensors": 10000})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            values = [(event.wall_time, event.step, event.tensor_proto) for event in events.Tensors(tag)]
            if not values or values[0][-1].dtype != tf.float32.as_datatype_enum:
                continue  # pictures
            title, label = _curve_of(tag, split, trained_bound)
            if title:
                # A run that an earlier version began may have the curve under two tags.
                curves.setdefault(title, {}).setdefault(label, []).extend(values)
    return {title: {label: _series(values) for label, values in series.items()} for title, series in curves.items()}


def _series(values):
    """(steps, values), arrays in the order of the steps, of [(time, step, tensor proto)]; the latest value of each step."""
    latest = {step: proto for _, step, proto in sorted(values, key=lambda value: value[0])}
    steps = sorted(latest)
    return np.array(steps), np.array([float(tf.make_ndarray(latest[step])) for step in steps])


def _curve_of(tag, split, trained_bound):
    """(title of the figure, label of the curve) of a tag of TensorBoard; (None, None): it is in no figure."""
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


def events_folder(workdir: str | os.PathLike, split: str) -> paths.AnyPath:
    """The folder of TensorBoard for evaluations on a split: validation and test images have separate curves."""
    return paths.as_path(workdir) / "tensorboard" / ("evaluation" if split == "test" else f"evaluation_{split}")


def _to_tensorboard(folder, row, pictures):
    writer = workdirs.event_writer(events_folder(folder, row["split"]))
    with writer.as_default(row["step"]):
        for name, entry in row.items():
            if isinstance(entry, dict):
                for tag, value in scalars(name, entry).items():
                    tf.summary.scalar(tag, value)
        for name, (picture, caption) in pictures.items():
            tf.summary.image(name, picture[None], description=caption)
    writer.close()


def scalars(name: str, entry: dict) -> dict[str, float]:
    """{tag: value} of an entry of metrics.json for TensorBoard, with the tags of training for the same quantity.

    A tag has one unit and one estimator: that of an importance-weighted estimate names K, that of other data names the data.
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
    """Lines of a table of the terms of a bound."""
    rows = [(term, f"{nats:.5g}", f"{entry['terms_bits_per_dim'][term]:.5g}") for term, nats in entry["terms"].items()]
    return ["", markdown_table((f"terms of {name}, means over the images", "nats", "bits/dim"), rows)]


def _lines(row, pictures):
    """The lines of the page from the table of numbers on."""
    rows = []
    entries = {name: entry for name, entry in row.items() if isinstance(entry, dict)}
    for name, entry in entries.items():
        value, error, _ = main_value(entry)
        counts = f"{entry.get('num_generated', '-')} / {entry['num_real'] if 'num_real' in entry else entry['num_images']}"
        uncertainty = "" if error is None else f"{error:.2g}"
        real = f"{entry['real']:.5g}" if "real" in entry else ""
        named = paths.markdown(name + of_reference(entry))
        rows.append((named, f"{value:.5g}", uncertainty, unit_of(name, entry), real, counts, entry["seconds"]))
    headings = ("number", "value", "+-", "unit", "real images in their place", "generated / real images", "seconds")
    lines = [markdown_table(headings, rows)]
    lines += [line for name, entry in entries.items() if "terms" in entry for line in _terms(name, entry)]
    notes = dict.fromkeys(note for entry in entries.values() for note in entry.get("notes", ()))
    lines += ["", *(f"- Note: {paths.markdown(note)}." for note in notes), ""]
    lines += ["## Pictures", ""]
    for name, (_, caption) in pictures.items():
        lines += [f"{caption}", "", f"![{name}]({FOLDER}/{name}.png)", ""]
    lines += ["## Protocol", "", "What each number means, and how it was measured; all of it is in metrics.json too.", ""]
    for name, entry in entries.items():
        lines += [f"**{name}**", ""]
        _, error, meaning = main_value(entry)
        if error is not None:
            lines.append(f"- +-: {meaning}")
        lines += [
            f"- {key}: {paths.markdown(json.dumps(value) if isinstance(value, (dict, list)) else str(value))}"
            for key, value in entry.items()
            if key not in ("value", "notes")
        ]
        lines.append("")
    return lines
