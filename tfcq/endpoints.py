"""The one table of the endpoints that models can have, their inputs and their outputs.

`tfcq.inputs` checks arguments by it, for methods in Python (`tfcq.models.arguments`) and for `tfcq.serving.client.client`;
`tfcq.exporting.signatures` builds the exported signatures and their checks from it. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Input:
    """An input: an array with one row for each of N images.

    Attributes:
        dtype: "uint8" (8-bit images), "int32", "float32" (finite) or "bool".
        row: shape of a row: a tuple, or the name of the model's attribute that holds it; None: a single number without rows.
        meaning: what it is.
        minimum, maximum: bounds of the values, inclusive; None: those of the type; a str: the model's attribute that holds it,
            by which exports and the model's methods check.
        one_for_all: whether Python also accepts one number for all rows; exported endpoints never do.
        endpoint_name: its name in exported endpoints; None: the name in Python.
        default: value that a client sends if the argument is left out; None: it must be given.
    """

    dtype: str
    row: tuple | str | None
    meaning: str
    minimum: float | None = None
    maximum: float | str | None = None
    one_for_all: bool = False
    endpoint_name: str | None = None
    default: float | bool | None = None

    def row_shape(self, model: Any) -> tuple[int, ...] | None:
        """The shape of a row for `model`: a tuple of ints; None for a single number."""
        return getattr(model, self.row) if isinstance(self.row, str) else self.row


INPUTS = {
    "images": Input("uint8", "image_shape", "8-bit images"),
    "other_images": Input("uint8", "image_shape", "8-bit images"),
    "compressed": Input("uint8", "compressed_shape", "compressed images, as `metadata` describes them"),
    "latents": Input("float32", "latent_shape", "latents"),
    "noise": Input("float32", "latent_shape", "noise that latents are made from"),
    "seeds": Input("int32", (2,), "seeds of rows", endpoint_name="seed"),
    "first_seeds": Input("int32", (2,), "seeds of the samples at share 0", endpoint_name="first_seed"),
    "second_seeds": Input("int32", (2,), "seeds of the samples at share 1", endpoint_name="second_seed"),
    "temperature": Input("float32", (), "scales the prior's standard deviation", minimum=0, one_for_all=True, default=1.0),
    "classes": Input("int32", (), "numbers of classes", minimum=0, maximum="largest_class", one_for_all=True),
    "share": Input("float32", (), "in [0, 1]: 0 at the first of the two, 1 at the other", minimum=0, maximum=1, one_for_all=True),
    "spherical": Input("bool", (), "True: along a great circle (Shoemake); False: straight", one_for_all=True, default=False),
    "num_importance_samples": Input("int32", None, "K, the draws of a likelihood", minimum=1),
}
"""{argument: what it holds}, the same for every method that has an argument of that name."""


@dataclasses.dataclass(frozen=True)
class Output:
    """An output: an array with one row for each of N images.

    Attributes:
        dtype, row: as in `Input`; also "string", text in UTF-8 (a str in Python and of a client).
        meaning: what it is, with its unit.
    """

    dtype: str
    row: tuple | str
    meaning: str


_IMAGES = {"images": Output("uint8", "image_shape", "8-bit images")}


def _number(meaning):
    return Output("float32", (), meaning)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An ability of a model: a method of the endpoint's name, and an endpoint of the exported model.

    Attributes:
        inputs: keys of `INPUTS`, in order.
        outputs: {name: `Output`}. The method returns a tensor if there is one output, else a dict.
        meaning: a sentence for people: model cards, clients, documentation.
        fixed: keys of `INPUTS` that the method takes too, and whose values are fixed by the export.
    """

    inputs: tuple[str, ...]
    outputs: dict[str, Output]
    meaning: str
    fixed: tuple[str, ...] = ()


ENDPOINTS = {
    "sample": Endpoint(
        ("seeds", "temperature"), _IMAGES, "images from the prior; the same seed gives the same image, alone or in a batch"
    ),
    "likelihood": Endpoint(
        ("images", "seeds"),
        {
            "log_prob": _number("log P(image), nats per 8-bit image"),
            "bits_per_dim": _number("-log_prob / (D ln 2); 8 if all images are equally likely"),
        },
        "log P(image) in nats and bits/dim: an importance-weighted lower bound",
        fixed=("num_importance_samples",),
    ),
    "sample_class": Endpoint(
        ("classes", "seeds", "temperature"), _IMAGES, "images of given classes; the same seed and class give the same image"
    ),
    "log_prob_given_class": Endpoint(
        ("images", "classes", "seeds"),
        {"log_prob": _number("log P(image | class), nats; of a density of latents log p(latents | class)")},
        "log P(image | class), nats: an importance-weighted lower bound; of a model that is a density of latents alone "
        "log p(latents | class)",
        fixed=("num_importance_samples",),
    ),
    "class_probabilities": Endpoint(
        ("images", "seeds"),
        {
            "probabilities": Output("float32", "classes_shape", "P(class | image), in [0, 1], of each class"),
            "log_prob_given_class": Output("float32", "classes_shape", "log P(image | class) of each class, nats"),
        },
        "P(class | image) by Bayes's rule, of log P(image | class), or of log p(latents | class), and of how often classes were "
        "trained on",
        fixed=("num_importance_samples",),
    ),
    "name_classes": Endpoint(
        ("classes",),
        {
            "names": Output("string", (), "name of the class"),
            "num_classes": Output("int32", (), "how many classes the model has"),
        },
        "names of classes, and how many classes there are",
    ),
    "latent_likelihood": Endpoint(
        ("images", "seeds"),
        {
            "latent_log_prob": _number("log p(latents), nats"),
            "reconstruction_error": _number("sum of the squared differences of pixels in [0, 1]"),
        },
        "log p(latents) of images in nats, and the squared error of their reconstructions, pixels in [0, 1]",
    ),
    "energy": Endpoint(
        ("images", "seeds"),
        {"energy": _number("KL of the posterior, nats")},
        "a score of images, nats: KL of the posterior, higher for those that look less real to an encoder without batch "
        "normalisation (with it, the KL does not recognise single generated images); not a log-density",
    ),
    "unit_gaussian_likelihood": Endpoint(
        ("images", "seeds"),
        {"unit_gaussian_log_prob": _number("log p(pixels), nats, of pixels in [0, 1] under N(decoder(z), 1)")},
        "a score of images, nats: an importance-weighted bound on log p(pixels) if pixels in [0, 1] had independent normal noise "
        "of deviation 1 about the decoder's image; lower for less likely images; not log P(image), and of one model alone",
        fixed=("num_importance_samples",),
    ),
    "encode": Endpoint(
        ("images", "seeds"), {"latents": Output("float32", "latent_shape", "latents")}, "latents of images (posterior means)"
    ),
    "decode": Endpoint(("latents",), _IMAGES, "images of latents"),
    "reconstruct": Endpoint(
        ("images", "seeds"),
        _IMAGES,
        "images through the latents of their posterior and back; drawn at random if the model draws its images at random",
    ),
    "generative_reconstruct": Endpoint(
        ("images", "seeds"), _IMAGES, "images from what the first of two stages keeps of the given images; the rest is generated"
    ),
    "interpolate": Endpoint(
        ("images", "other_images", "share", "spherical", "seeds"),
        _IMAGES,
        "an image at a fraction `share` (0 to 1) of the way between two images, straight or spherical, in the space of the "
        "noise that latents are made from, or of the latents if they are not made from noise",
    ),
    "encode_given_class": Endpoint(
        ("images", "classes", "seeds"),
        {"latents": Output("float32", "latent_shape", "latents")},
        "latents of images of given classes, of a model whose latents do not say the class",
    ),
    "decode_given_class": Endpoint(("latents", "classes"), _IMAGES, "images of given classes, of such latents"),
    "reconstruct_given_class": Endpoint(
        ("images", "classes", "seeds"), _IMAGES, "images of given classes through the latents of their posterior and back"
    ),
    "interpolate_given_class": Endpoint(
        ("images", "other_images", "classes", "share", "spherical", "seeds"),
        _IMAGES,
        "as `interpolate`, where both images are taken to be of the given class",
    ),
    "interpolate_noise": Endpoint(
        ("first_seeds", "second_seeds", "share", "spherical", "temperature"),
        _IMAGES,
        "an image at a fraction `share` (0 to 1) of the way between two samples, straight or spherical, in the space of the "
        "noise that samples are made from; the ends are those of `sample`",
    ),
    "super_resolve": Endpoint(
        ("compressed", "seeds"), _IMAGES, "images from compressed ones (8-bit copies, smaller or grey)"
    ),
}
"""{ability of a model: its endpoint}. A new one is a row here and a method of that name (`tfcq.models.base`)."""

_FILES = "_bytes"  # TF Serving's REST API writes strings of such outputs in base64, and other strings as text


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of an exported model: an endpoint, with its images as arrays or as picture files.

    Attributes:
        ability: a key of `ENDPOINTS`.
        encoded: whether images are strings [N], each a whole file: inputs are PNG or JPEG, cut and resized as the training
            images were; outputs are PNG.
    """

    ability: str
    encoded: bool = False

    @property
    def name(self) -> str:
        """Its name in exported models."""
        return f"{self.ability}_png" if self.encoded else self.ability

    @property
    def inputs(self) -> dict[str, str]:
        """{name of a tensor: argument, a key of `INPUTS`}, in order."""
        names = {}
        for argument in ENDPOINTS[self.ability].inputs:
            one = INPUTS[argument]
            names[argument + _FILES if self.takes_files(argument) else one.endpoint_name or argument] = argument
        return names

    @property
    def outputs(self) -> dict[str, str]:
        """{name of a tensor: output, a key of the endpoint's `outputs`}, in order."""
        of_endpoint = ENDPOINTS[self.ability].outputs
        return {f"{name}_png{_FILES}" if self.answers_files(name) else name: name for name in of_endpoint}

    @property
    def meaning(self) -> str:
        """A sentence for people."""
        if not self.encoded:
            return ENDPOINTS[self.ability].meaning
        differences = []
        if any(self.takes_files(argument) for argument in self.inputs.values()):
            differences.append("takes PNG or JPEG files, which are cut and resized as the training images were")
        if any(self.answers_files(name) for name in self.outputs.values()):
            differences.append("answers PNG files")
        return f"`{self.ability}` that {' and '.join(differences)}"

    def takes_files(self, argument: str) -> bool:
        """Whether an argument's rows are picture files."""
        return self.encoded and INPUTS[argument].dtype == "uint8"

    def answers_files(self, output: str) -> bool:
        """Whether an output's rows are picture files."""
        return self.encoded and ENDPOINTS[self.ability].outputs[output].dtype == "uint8"


_TAKE_IMAGES = [name for name, one in ENDPOINTS.items() if any(INPUTS[argument].dtype == "uint8" for argument in one.inputs)]

_WITH_FILES = ("sample", "sample_class", *_TAKE_IMAGES)

SIGNATURES = {
    one.name: one
    for one in (*map(Signature, ENDPOINTS), *(Signature(ability, encoded=True) for ability in _WITH_FILES))
}
"""{signature of an exported model: what it is}; a model has those of its abilities, and `serving_default`, which is `sample`.

Every endpoint that takes images takes them as picture files, too, and samples come as such. `decode` and `interpolate_noise`
have arrays alone: who has latents has a program, and each signature costs a server another warm-up.
"""

METHODS = {ability: (ability, (*one.inputs, *one.fixed)) for ability, one in ENDPOINTS.items()} | {
    "log_prob": ("likelihood", ("images", "seeds", "num_importance_samples")),
    "bits_per_dim": ("likelihood", ("images", "seeds", "num_importance_samples")),
    "elbo": ("likelihood", ("images", "seeds")),
    "elbo_terms": ("likelihood", ("images", "seeds")),
    "compress": ("super_resolve", ("images",)),
    "noise_of": ("decode", ("latents",)),
    "latents_of": ("decode", ("noise",)),
}
"""{method of a model: (the ability that it needs, its arguments that are checked)}."""


def blamed_last(arguments: Iterable[str]) -> list[str]:
    """`arguments` with seeds at the end: if the numbers of rows differ, the message says that the seeds are wrong."""
    return sorted(arguments, key=lambda argument: argument == "seeds")
