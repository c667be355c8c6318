"""A model of a few lines of NumPy, for the tests of the page."""

import numpy as np

SHAPE = (8, 8, 1)
ALL = frozenset({"sample", "likelihood", "reconstruct", "interpolate", "super_resolve"})
WITH_CLASSES = frozenset({"sample", "likelihood", "sample_class", "class_probabilities"})
GIVEN_A_CLASS = WITH_CLASSES | {"reconstruct_given_class", "interpolate_given_class"}


class Model:
    """Answers by NumPy; remembers what it was asked."""

    config, preparation, state = None, {}, "version 7"

    def __init__(self, endpoints=ALL, digest="0" * 32, class_names=(), num_classes=None):
        self.endpoints, self.digest, self.asked = frozenset(endpoints), digest, []
        self.class_names, self.num_classes = class_names, len(class_names) if num_classes is None else num_classes

    def image_shape(self, endpoint, name="images"):
        return (4, 4, 1) if name == "compressed" else SHAPE

    def ask(self, endpoint, **arrays):
        self.asked.append((endpoint, arrays))
        if endpoint == "sample":
            values = arrays["seed"][:, 0] + 10 * arrays["seed"][:, 1] + 100 * arrays["temperature"].astype(np.int64)
            return {"images": np.broadcast_to(values.astype(np.uint8)[:, None, None, None], (len(values), *SHAPE))}
        if endpoint == "sample_class":
            numbers = arrays["classes"]
            return {"images": np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (len(numbers), *SHAPE))}
        if endpoint == "class_probabilities":
            return {"probabilities": np.float32([[0.25, 0.75] + [0.0] * (self.num_classes - 2)])}
        if endpoint == "reconstruct_given_class":
            return {"images": arrays["images"] // 2 + arrays["classes"].astype(np.uint8)[:, None, None, None]}
        if endpoint == "reconstruct":
            return {"images": arrays["images"] // 2}
        if endpoint in ("interpolate", "interpolate_given_class"):
            share, more = arrays["share"][:, None, None, None], arrays.get("classes", np.zeros(1))[:, None, None, None]
            return {"images": ((1 - share) * arrays["images"] + share * arrays["other_images"] + more).astype(np.uint8)}
        if endpoint == "super_resolve":
            larger = arrays["compressed"].repeat(2, 1).repeat(2, 2)
            return {"images": larger + arrays["seed"][:, 1, None, None, None].astype(np.uint8)}
        bits = arrays["images"].astype(np.float32).mean((1, 2, 3)) / 10
        return {"log_prob": -bits * 64 * np.float32(np.log(2)), "bits_per_dim": bits}
