"""What a model can be asked: the one table of its endpoints, of its methods in Python, and of what their inputs hold.

`tfcq.inputs` checks arguments by it, for methods in Python (`tfcq.models.arguments`) and for `tfcq.serving.client`;
`tfcq.exporting.signatures` makes the endpoints and their checks of it. No TensorFlow.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Input:
    """An input: an array with one row for each of N images.

    Attributes:
        dtype: "uint8" (8-bit images), "int32", "float32" (finite) or "bool".
        row: shape of a row: a tuple, or the name of the model's attribute that has it; None: a single number without rows.
        meaning: what it is.
        minimum, maximum: of the values, inclusive; None: those of the type.
        one_for_all: whether Python also takes one number for all rows; endpoints never do.
        endpoint_name: what endpoints call it; None: as Python does.
        default: what a client sends where it is left out; None: it must be given.
    """

    dtype: str
    row: tuple | str | None
    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    one_for_all: bool = False
    endpoint_name: str | None = None
    default: float | bool | None = None

    def row_shape(self, model):
        """The shape of a row for `model`: a tuple of ints; None for a single number."""
        return getattr(model, self.row) if isinstance(self.row, str) else self.row


INPUTS = {
    "images": Input("uint8", "image_shape", "8-bit images"),
    "other_images": Input("uint8", "image_shape", "8-bit images"),
    "compressed": Input("uint8", "compressed_shape", "compressed images, as `metadata` has them"),
    "latents": Input("float32", "latent_shape", "latents"),
    "noise": Input("float32", "latent_shape", "noise that latents are made of"),
    "seeds": Input("int32", (2,), "seeds of rows", endpoint_name="seed"),
    "temperature": Input("float32", (), "scales the prior's standard deviation", minimum=0, one_for_all=True, default=1.0),
    "share": Input("float32", (), "in [0, 1]: 0 at the first image, 1 at the other", minimum=0, maximum=1, one_for_all=True),
    "spherical": Input("bool", (), "True: Shoemake's way, a great circle; False: straight", one_for_all=True, default=False),
    "num_importance_samples": Input("int32", None, "K, draws of a likelihood", minimum=1),
}
"""{argument: what it holds}, the same for every method that has an argument of that name."""

@dataclasses.dataclass(frozen=True)
class Output:
    """An output: an array with one row for each of N images.

    Attributes:
        dtype, row: as of `Input`.
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
    """What a model of that ability can be asked: by its method of the endpoint's name, and once it is exported.

    Attributes:
        inputs: keys of `INPUTS`, in their order.
        outputs: {name: `Output`}. A method answers a tensor where there is one, else a dict.
        meaning: a sentence for people: model cards, clients, documents.
        fixed: keys of `INPUTS` that a method takes too, and that an export fixes.
    """

    inputs: tuple
    outputs: dict
    meaning: str
    fixed: tuple = ()


ENDPOINTS = {
    "sample": Endpoint(
        ("seeds", "temperature"), _IMAGES, "images from the prior; the same seed gives the same image, alone or in a batch"
    ),
    "likelihood": Endpoint(
        ("images", "seeds"),
        {
            "log_prob": _number("log P(image), nats per 8-bit image"),
            "bits_per_dim": _number("-log_prob / (D ln 2); 8 where all images are equally likely"),
        },
        "log P(image) in nats and bits/dim: an importance-weighted lower bound",
        fixed=("num_importance_samples",),
    ),
    "latent_likelihood": Endpoint(
        ("images", "seeds"),
        {
            "latent_log_prob": _number("log p(latents), nats"),
            "reconstruction_error": _number("squares of the differences of pixels in [0, 1], summed"),
        },
        "log p(latents) of images in nats, and the squared error of their reconstructions, pixels in [0, 1]",
    ),
    "energy": Endpoint(
        ("images", "seeds"),
        {"energy": _number("KL of the posterior, nats")},
        "a score of images, nats: KL of the posterior, higher for those that look less real to an encoder without batch "
        "normalisation (with it, the KL does not tell single generated images); no log-density",
    ),
    "encode": Endpoint(
        ("images", "seeds"), {"latents": Output("float32", "latent_shape", "latents")}, "latents of images (posterior means)"
    ),
    "decode": Endpoint(("latents",), _IMAGES, "images of latents"),
    "reconstruct": Endpoint(
        ("images", "seeds"),
        _IMAGES,
        "images through the latents of their posterior and back; where an image is drawn, so is this one",
    ),
    "generative_reconstruct": Endpoint(
        ("images", "seeds"), _IMAGES, "images of what the first of two stages keeps of images; the rest is generated"
    ),
    "interpolate": Endpoint(
        ("images", "other_images", "share", "spherical", "seeds"),
        _IMAGES,
        "an image at a share (0 to 1) of the way between two images, straight or spherical, in the space of the noise that "
        "latents are made of, or of the latents where they are made of none",
    ),
    "super_resolve": Endpoint(
        ("compressed", "seeds"), _IMAGES, "images of compressed ones (a smaller or a grey copy, of 8 bits)"
    ),
}
"""{ability of a model: its endpoint}. A new one is its row here and a method of that name (`tfcq.models.base`)."""

METHODS = {ability: (ability, (*one.inputs, *one.fixed)) for ability, one in ENDPOINTS.items()} | {
    "log_prob": ("likelihood", ("images", "seeds", "num_importance_samples")),
    "elbo": ("likelihood", ("images", "seeds")),
    "elbo_terms": ("likelihood", ("images", "seeds")),
    "compress": ("super_resolve", ("images",)),
    "noise_of": ("decode", ("latents",)),
    "latents_of": ("decode", ("noise",)),
}
"""{method of a model: (the ability that it needs, its arguments that are checked)}."""


def blamed_last(arguments):
    """`arguments` with seeds at the end: where the numbers of rows differ, the seeds are what is told to be wrong."""
    return sorted(arguments, key=lambda argument: argument == "seeds")
