"""Which model may be the next version of which: by tensors alone, of functions that compute nothing."""

import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.exporting.succession import check_successor


def signatures(size=8, channels=1, latents=(4,), seed=tf.int32, without=(), **more):
    """{name: concrete function} like those of an export."""
    images = tf.TensorSpec((None, size, size, channels), tf.uint8, "images")
    seeds = tf.TensorSpec((None, 2), seed, "seed")
    codes = tf.TensorSpec((None, *latents), tf.float32, "latents")

    def zeros(spec, rows):
        return tf.zeros((tf.shape(rows)[0], *spec.shape[1:]), spec.dtype)

    functions = {
        "sample": (lambda seed: {"images": zeros(images, seed)}, [seeds]),
        "encode": (lambda images, seed: {"latents": zeros(codes, seed)}, [images, seeds]),
        "decode": (lambda latents: {"images": zeros(images, latents)}, [codes]),
        **more,
    }
    made = {
        name: tf.function(function, input_signature=specs).get_concrete_function()
        for name, (function, specs) in functions.items()
        if name not in without
    }
    return made | {"serving_default": made["sample"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Version 2 of a model, and others that are none, or not the newest."""
    base = tmp_path_factory.mktemp("base") / "model"
    for version, size in (("1", 32), ("2", 8)):
        tf.saved_model.save(tf.Module(), str(base / version), signatures=signatures(size))
    for other in ("3", "backup", ".staged-1", "\u00b2"):
        (base / other).mkdir()
    return base


SCORE = (lambda seed: {"score": tf.zeros(tf.shape(seed)[0])}, [tf.TensorSpec((None, 2), tf.int32, "seed")])


@pytest.mark.parametrize("changes", [{}, {"score": SCORE}], ids=", ".join)
def test_what_may_follow(base, changes):
    check_successor(base, signatures(**changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": 16}, "decode output images uint8 [N, 8, 8, 1] -> uint8 [N, 16, 16, 1]"),
        ({"channels": 3}, "encode input images uint8 [N, 8, 8, 1] -> uint8 [N, 8, 8, 3]"),
        ({"latents": (5,)}, "decode input latents float32 [N, 4] -> float32 [N, 5]"),
        ({"latents": (2, 2, 1)}, "encode output latents float32 [N, 4] -> float32 [N, 2, 2, 1]"),
        ({"without": ["encode"]}, "no encode"),
        ({"seed": tf.int64}, "sample input seed int32 [N, 2] -> int64 [N, 2]"),
        ({"decode": SCORE}, "decode input latents float32 [N, 4] -> none"),
        ({"size": 16, "seed": tf.int64}, "; 2 more)"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_what_may_not_follow(base, changes, told):
    with pytest.raises(UserError) as caught:
        check_successor(base, signatures(**changes))
    message = str(caught.value)
    assert message.startswith(f"{base / '2'} has other signatures than this model (its -> this model's: ")
    assert "\n" not in message
    assert told in message
    assert "--export_dir" in message and "--allow_other_signatures" in message


def test_a_first_version_follows_nothing(tmp_path):
    check_successor(tmp_path / "nowhere", signatures())
    check_successor(tmp_path, signatures())


def test_a_version_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(UserError, match="7/saved_model.pb: this SavedModel cannot be read"):
        check_successor(tmp_path, signatures())
