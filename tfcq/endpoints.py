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
        minimum, maximum: of the values, inclusive; None: those of the type.
        one_for_all: whether Python also takes one number for all rows; endpoints never do.
        endpoint_name: what endpoints call it; None: as Python does.
    """

    dtype: str
    row: tuple | str | None
    minimum: float | None = None
    maximum: float | None = None
    one_for_all: bool = False
    endpoint_name: str | None = None

    def row_shape(self, model):
        """The shape of a row for `model`: a tuple of ints; None for a single number."""
        return getattr(model, self.row) if isinstance(self.row, str) else self.row


INPUTS = {
    "images": Input("uint8", "image_shape"),
    "other_images": Input("uint8", "image_shape"),
    "compressed": Input("uint8", "compressed_shape"),
    "latents": Input("float32", "latent_shape"),
    "noise": Input("float32", "latent_shape"),
    "seeds": Input("int32", (2,), endpoint_name="seed"),
    "temperature": Input("float32", (), minimum=0, one_for_all=True),
    "share": Input("float32", (), minimum=0, maximum=1, one_for_all=True),
    "spherical": Input("bool", (), one_for_all=True),
    "num_importance_samples": Input("int32", None, minimum=1),
}
"""{argument: what it holds}, the same for every method that has an argument of that name."""

ENDPOINTS = {
    "sample": ("seeds", "temperature"),
    "likelihood": ("images", "seeds"),
    "latent_likelihood": ("images", "seeds"),
    "energy": ("images", "seeds"),
    "encode": ("images", "seeds"),
    "decode": ("latents",),
    "reconstruct": ("images", "seeds"),
    "generative_reconstruct": ("images", "seeds"),
    "interpolate": ("images", "other_images", "share", "spherical", "seeds"),
    "super_resolve": ("compressed", "seeds"),
}
"""{ability of a model: inputs of its endpoint, in their order}."""

METHODS = {ability: (ability, inputs) for ability, inputs in ENDPOINTS.items() if ability != "likelihood"} | {
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
