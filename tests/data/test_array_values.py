"""Arrays that are no images from 0 to 255: shapes and types that could be meant in two ways, and scaled values."""

import gzip
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import load, manifest_by_position
from tfcq.data.tfds import Records
from tfcq.data.values import refuse_scaled
from tfcq.errors import UserError

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 9, 8, 3)).astype(np.uint8)
UNIT = PIXELS / 255.0


def load_npz(folder, array, **others):
    np.savez(folder / "a.npz", train=array, **others)
    return load(DataConfig(dataset=f"npz:{folder / 'a.npz'}", image_size=8))


def array(*shape, dtype=np.uint8):
    return np.random.RandomState(0).randint(0, 256, shape).astype(dtype)


SHAPES = {
    "one colour image": (array(32, 32, 3), r"one image of 32x32x3: as a set of one, array\[None\]; if it is 32 grey images"),
    "one grey image": (array(32, 32, 1), r"one image of 32x32x1: as a set of one"),
    "one image with alpha": (array(32, 32, 4), r"one image of 32x32x4"),
    "one image, channels first": (array(3, 32, 32), r"one image of 32x32 with its channels first: np.moveaxis\(array, 0, -1\)"),
    "colour, channels first": (array(9, 3, 32, 32), r"channels first; move them, np.moveaxis\(array, 1, -1\)"),
    "grey, channels first": (array(9, 1, 32, 32), r"channels first; move them, np.moveaxis\(array, 1, -1\)"),
    "images last": (array(32, 32, 3, 9), r"images last; move them, np.moveaxis\(array, -1, 0\)"),
    "alpha": (array(9, 32, 32, 4), r"fourth channel is alpha; drop it, array\[..., :3\]"),
    "rows": (array(9, 3072), r"array.reshape\(len\(array\), h, w\)"),
    "numbers": (array(9), r"uint8 \[9\]$"),
    "video": (array(9, 5, 8, 8, 3), r"uint8 \[9, 5, 8, 8, 3\]$"),
    "two channels": (array(9, 8, 8, 2), r"uint8 \[9, 8, 8, 2\]$"),
    "no pixels": (array(9, 0, 8, 3), r"uint8 \[9, 0, 8, 3\]$"),
}


@pytest.mark.parametrize("given, expected", SHAPES.values(), ids=SHAPES)
def test_shapes_that_are_no_set_of_images_are_told(tmp_path, given, expected):
    with pytest.raises(UserError, match=r"a.npz, array train: expected uint8 \[N, h, w\] or \[N, h, w, 1 or 3\], "
                                        rf"received .*{expected}") as caught:
        load_npz(tmp_path, given)
    assert "\n" not in str(caught.value)


# The advice of the messages, taken: what each array should have been.
@pytest.mark.parametrize("given, mended, shape", [
    (array(32, 32, 3), lambda a: a[None].repeat(9, 0), (8, 8, 3)),
    (array(32, 32, 3), lambda a: a[..., None], (8, 8, 1)),
    (array(3, 32, 32), lambda a: np.moveaxis(a, 0, -1)[None].repeat(9, 0), (8, 8, 3)),
    (array(9, 3, 32, 32), lambda a: np.moveaxis(a, 1, -1), (8, 8, 3)),
    (array(32, 32, 3, 9), lambda a: np.moveaxis(a, -1, 0), (8, 8, 3)),
    (array(9, 32, 32, 4), lambda a: a[..., :3], (8, 8, 3)),
])
def test_what_the_messages_advise_is_accepted(tmp_path, given, mended, shape):
    assert load_npz(tmp_path, mended(given)).image_shape == shape


@pytest.mark.parametrize("given, shape", [
    (array(30, 28, 28), (8, 8, 1)), (array(30, 8, 5), (8, 8, 1)), (array(4, 6, 5), (8, 8, 1)), (array(30, 4, 4), (8, 8, 1)),
    (array(30, 32, 32, 3), (8, 8, 3)), (array(30, 3, 32, 3), (8, 8, 3)), (array(30, 32, 3, 1), (8, 8, 1)),
])
def test_shapes_that_are_sets_of_images(tmp_path, given, shape):
    dataset = load_npz(tmp_path, given)
    assert dataset.image_shape == shape
    assert sum(dataset.num_images(split) for split in ("train", "validation", "test")) == len(given)


TYPES = {
    "0 to 1": (UNIT.astype(np.float32), r"float32 .* from 0 to 1; if 1 is white, np.round\(255 \* array\).astype\('uint8'\)"),
    "0 to 1, double": (UNIT, "float64 .*values from 0 to 1; if 1 is white"),
    "0 to 1, half": (UNIT.astype(np.float16), "float16 .*values from 0 to 1; if 1 is white"),
    "-1 to 1": (2 * UNIT - 1, r"values from -1 to 1; if -1 is black and 1 white, np.round\(127.5 \* \(array \+ 1\)\).astype"),
    "0 to 255": (PIXELS.astype(np.float32), r"values from 0 to 255; if 255 is white, np.round\(array\).astype\('uint8'\)"),
    "standardised": ((UNIT - 0.5) / 0.2, "values from -2.5 to 2.5, which is no usual range of pixels"),
    "NaN": (np.where(UNIT > 0.5, np.nan, UNIT), "values from nan to nan; expected finite numbers"),
    "bool": (PIXELS > 128, r"bool .*of false and true; black and white are 0 and 255, 255 \* array.astype\('uint8'\)"),
    "int64": (PIXELS.astype(np.int64), r"int64 .*values from 0 to 255; if 255 is white, np.round\(array\).astype\('uint8'\)"),
    "int64 of 0 and 1": ((PIXELS > 128).astype(np.int64), r"values from 0 to 1; if 1 is white, np.round\(255 \* array\)"),
    "int8": (PIXELS.astype(np.int8), "int8 .*values from -128 to 127, which is no usual range of pixels"),
    "uint16": (PIXELS.astype(np.uint16) * 257, r"uint16 .*values from 0 to 6.554e\+04, which is no usual range of pixels"),
    "complex": (PIXELS.astype(complex), r"complex128 \[40, 9, 8, 3\]$"),
    "text": (np.full((9, 8, 8), "a"), r"<U1 \[9, 8, 8\]$"),
}


@pytest.mark.parametrize("given, expected", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("key", ["train", "test"])
def test_types_other_than_8_bits_are_asked_about(tmp_path, given, expected, key):
    arrays = {"train": PIXELS} | {key: given}
    with pytest.raises(UserError, match=f"a.npz, array {key}: expected uint8 .*received .*{expected}") as caught:
        load_npz(tmp_path, arrays["train"], **{name: value for name, value in arrays.items() if name != "train"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given, mend", [
    (UNIT.astype(np.float32), lambda a: np.round(255 * a).astype("uint8")),
    (2 * UNIT - 1, lambda a: np.round(127.5 * (a + 1)).astype("uint8")),
    (PIXELS.astype(np.float64), lambda a: np.round(a).astype("uint8")),
])
def test_what_the_messages_advise_gives_the_pixels_back(given, mend):
    np.testing.assert_array_equal(mend(given), PIXELS)


SCALED = {
    "0 to 1": (UNIT.astype(np.uint8), "every pixel is 0 or 1"),
    "all below 1": (np.minimum(UNIT, 0.99).astype(np.uint8), "every pixel is 0,"),
    "-1 to 1": ((2 * UNIT - 1).astype(np.int64).astype(np.uint8), "every pixel is 0 or 1 or 255"),
    "binary": ((PIXELS > 128).astype(np.uint8), "every pixel is 0 or 1"),
}


@pytest.mark.parametrize("given, expected", SCALED.values(), ids=SCALED)
def test_scaled_images_cast_to_8_bits_are_refused(tmp_path, given, expected):
    with pytest.raises(UserError, match=f"a.npz, array train: {expected}.*expected values from 0 to 255") as caught:
        load_npz(tmp_path, given)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"a.npz, array test: {expected}"):
        load_npz(tmp_path, PIXELS, test=given)


@pytest.mark.parametrize("values", [(0, 255), (255,), (0, 1, 2), (0, 254), (1, 2), (0, 1, 128, 255)])
def test_other_values_are_fine(values):
    refuse_scaled([np.resize(np.uint8(values), (4, 4, 1))], "a")


def test_one_ordinary_pixel_in_the_last_image_is_enough(tmp_path):
    images = np.zeros((200, 8, 8, 1), np.uint8)
    images[-1, 0, 0] = 77
    assert load_npz(tmp_path, images).image_shape == (8, 8, 1)
    with pytest.raises(UserError, match="every pixel is 0"):
        load_npz(tmp_path, images[:-1])


@pytest.mark.parametrize("compress", [False, True])
def test_scaled_images_of_idx_files_are_refused(tmp_path, compress):
    for stem, images in (("train", PIXELS[..., 0]), ("t10k", UNIT[..., 0].astype(np.uint8))):
        content = struct.pack(">HBBiii", 0, 8, 3, *images.shape) + images.tobytes()
        path = tmp_path / f"{stem}-images-idx3-ubyte{'.gz' * compress}"
        path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte.*: every pixel is 0 or 1"):
        load(DataConfig(dataset=f"idx:{tmp_path}", image_size=8))


def test_scaled_images_of_a_folder_are_refused(tmp_path):
    for number, image in enumerate(UNIT.astype(np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    with pytest.raises(UserError, match=r".png and the images after it: every pixel is 0 or 1"):
        load(DataConfig(dataset=f"folder:{tmp_path}", image_size=8))
    Image.fromarray(PIXELS[0]).save(tmp_path / "00.png")
    load(DataConfig(dataset=f"folder:{tmp_path}", image_size=8))


def test_a_run_that_began_with_scaled_images_goes_on_with_them_and_takes_no_others(tmp_path):
    """A version that did not refuse them began it."""
    config = DataConfig(dataset=f"npz:{tmp_path / 'a.npz'}", image_size=8)
    np.savez(tmp_path / "a.npz", images=UNIT.astype(np.uint8))
    begun = manifest_by_position(config)
    assert load(config, begun).manifest.fingerprints() == begun.fingerprints()
    np.savez(tmp_path / "a.npz", images=1 - UNIT.astype(np.uint8))
    with pytest.raises(UserError, match="every pixel is 0 or 1"):
        load(config, begun, accept_changed_data=True)


def test_scaled_images_of_records_are_refused():
    def record(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.getvalue()]))
        return tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString()

    records = [record(image) for image in UNIT.astype(np.uint8)]
    with pytest.raises(UserError, match="toy train, image 0 and the images after it: every pixel is 0 or 1"):
        Records(records, "image", 3, "toy train").refuse_scaled()
    Records([*records, record(PIXELS[0])], "image", 3, "toy train").refuse_scaled()
