"""The requests that check an exported model and warm it up, and the live model's answers to them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

from tfcq.endpoints import SIGNATURES
from tfcq.exporting.signatures import names_of
from tfcq.models.base import GenerativeModel
from tfcq.randomness import row_seeds

_ROWS = 3

Arrays = dict[str, np.ndarray]


def requests(model: GenerativeModel) -> dict[str, Arrays]:
    """{signature: {tensor: array of 3 rows}} for every signature of the model; the images are its own samples."""
    seeds = row_seeds(_ROWS, seed=7)
    images = model.sample(seeds)
    values = {
        "seeds": seeds,
        "first_seeds": seeds,
        "second_seeds": seeds[::-1].copy(),
        "temperature": np.linspace(1.0, 0.0, _ROWS, dtype=np.float32),
        "images": images,
        "other_images": images[::-1].copy(),
        "share": np.linspace(0.0, 1.0, _ROWS, dtype=np.float32),
        "spherical": np.arange(_ROWS) % 2 == 0,
    }
    if "sample_class" in model.abilities:
        values["classes"] = np.arange(_ROWS, dtype=np.int32) % len(model.class_names)
    if "super_resolve" in model.abilities:
        values["compressed"] = model.compress(images)
    if {"decode", "decode_given_class"} & model.abilities:
        values["latents"] = np.random.default_rng(7).standard_normal((_ROWS, *model.latent_shape)).astype(np.float32)
    return {
        name: {
            tensor: as_files(values[argument]) if SIGNATURES[name].takes_files(argument) else values[argument]
            for tensor, argument in SIGNATURES[name].inputs.items()
        }
        for name in names_of(model.abilities)
    }


def answers(
    signatures: dict[str, tf.types.experimental.ConcreteFunction], asked: dict[str, Arrays], begin: Callable[[str], object]
) -> Arrays:
    """{"signature/tensor": array} of `requests`; `begin` is called with the name of each signature that is run.

    Signatures of picture files are not run: those of arrays have the same answers, with images for files.
    """
    found: Arrays = {}
    for name, tensors in asked.items():
        signature = SIGNATURES[name]
        if signature.encoded:
            for tensor, output in signature.outputs.items():
                found[f"{name}/{tensor}"] = found[f"{signature.ability}/{output}"]
            continue
        begin(name)
        outputs = signatures[name](**{tensor: tf.constant(array) for tensor, array in tensors.items()})
        arrays = {tensor: value.numpy() for tensor, value in outputs.items()}
        found |= {f"{name}/{tensor}": one.astype("S") if one.dtype == object else one for tensor, one in arrays.items()}
    return found


def as_files(images: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, 1 or 3] as files in PNG, bytes [N]."""
    files = []
    for image in images:
        content = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
        files.append(content.getvalue())
    return np.array(files)  # of NumPy's type S, which drops zeros at the end: PNG ends in another byte


def without_files(found: Arrays) -> Arrays:
    """Answers with images uint8 [N, H, W, C] for picture files."""

    def images(files):
        pictures = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
        return np.stack([picture[..., None] if picture.ndim == 2 else picture for picture in pictures])

    files = [name for name, array in found.items() if array.dtype.kind == "S" and SIGNATURES[name.split("/")[0]].encoded]
    return {name: images(array) if name in files else array for name, array in found.items()}
