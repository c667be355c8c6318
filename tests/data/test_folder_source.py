"""folder: layouts, kinds of image files, broken files."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import dataset as dataset_module
from tfcq.data import load
from tfcq.data.decoding import decode, verify
from tfcq.data.folder import EXTENSIONS, find_images
from tfcq.errors import UserError


def pixels(seed, *shape):
    return np.random.RandomState(seed).randint(0, 256, shape or (8, 8, 3)).astype(np.uint8)


def write(path, array=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(0) if array is None else array).save(path, **options)
    return path


def fill(folder, count, seed=0):
    for number in range(count):
        write(folder / f"{number:03}.png", pixels(seed + number))


def load_folder(folder, **options):
    return load(DataConfig(dataset=f"folder:{folder}", image_size=8, **options))


def contents(dataset, *splits):
    return {image.tobytes() for split in splits for image in dataset.images(split, range(dataset.num_images(split)))}


def test_flat_folder(tmp_path):
    fill(tmp_path, 20)
    dataset = load_folder(tmp_path)
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [16, 2, 2]
    assert dataset.image_shape == (8, 8, 3)
    assert contents(dataset, "train", "validation", "test") == {pixels(seed).tobytes() for seed in range(20)}


def test_a_folder_a_class_and_split_folders(tmp_path):
    for number, name in enumerate(("train/cats", "train/dogs/small", "test/cats", "validation")):
        fill(tmp_path / name, 5, 10 * number)
    (tmp_path / "README.txt").write_text("how these were made")
    dataset = load_folder(tmp_path)
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [10, 5, 5]
    assert contents(dataset, "test") == {pixels(20 + seed).tobytes() for seed in range(5)}
    assert contents(dataset, "train") == {pixels(seed).tobytes() for seed in (0, 1, 2, 3, 4, 10, 11, 12, 13, 14)}


def test_the_first_images_of_a_split_are_of_all_classes(tmp_path):
    for value in range(4):
        for number in range(25):
            write(tmp_path / f"test/{value}/{number}.png", np.full((8, 8), value, np.uint8))
    fill(tmp_path / "train", 5)
    dataset = load_folder(tmp_path, color="grey")
    assert set(dataset.images("test", range(20))[:, 0, 0, 0]) == {0, 1, 2, 3}


def test_the_order_depends_on_names_only(tmp_path, monkeypatch):
    """File systems list folders in different orders."""
    for number in range(12):
        write(tmp_path / f"{number % 3}" / f"{number}.png", pixels(number))
    for name in ("b", "a"):
        os.symlink(tmp_path / "1", tmp_path / name)
    os.symlink(tmp_path / "2" / "2.png", tmp_path / "0" / "linked.png")
    scandir = os.scandir
    found = []
    for reverse in (False, True):
        @contextlib.contextmanager
        def listed(path, reverse=reverse):
            with scandir(path) as entries:
                yield sorted(entries, key=lambda entry: entry.name, reverse=reverse)

        monkeypatch.setattr(os, "scandir", listed)
        found.append(find_images(str(tmp_path)))
    assert found[0] == found[1] and len(found[0].paths) == 12 and len(found[0].twice) == 3


def test_other_and_hidden_files(tmp_path):
    fill(tmp_path, 10)
    (tmp_path / "labels.csv").write_text("0,1")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "Thumbs.db").write_bytes(b"1")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    write(tmp_path / ".cache" / "x.png")
    dataset = load_folder(tmp_path)
    assert sum(dataset.num_images(split) for split in ("train", "validation", "test")) == 10
    assert dataset.description.endswith("skipped 1 .csv, 1 .db")


def test_links_are_followed_but_not_round_in_circles(tmp_path):
    fill(tmp_path / "elsewhere", 3)
    fill(tmp_path / "set" / "here", 2)
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "set" / "here" / "up")
    assert len(find_images(str(tmp_path / "set")).paths) == 5


@pytest.mark.parametrize("folders, expected", [
    ([], "expected images .*found none among 0 files"),
    (["train"], "train: expected images"),
    (["test"], "found test but no train folder beside"),
    (["validation", "test"], "found validation and test but no train"),
])
def test_layouts_without_images(tmp_path, folders, expected):
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=expected):
        load_folder(tmp_path)


def test_images_beside_the_splits(tmp_path):
    fill(tmp_path / "train", 5)
    fill(tmp_path / "extra", 1)
    with pytest.raises(UserError, match="extra/000.png: belongs to no split"):
        load_folder(tmp_path)
    with pytest.raises(UserError, match="folder: expected a folder, received '/no/such'"):
        load(DataConfig(dataset="folder:/no/such"))


@pytest.mark.parametrize("extension", EXTENSIONS + (".PNG", ".Jpeg"))
def test_file_formats(tmp_path, extension):
    smooth = np.add.outer(np.arange(16) * 8, np.arange(16) * 4).astype(np.uint8)
    lossy = extension.lower() in (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp")
    for number in range(4):
        write(tmp_path / f"{number}{extension}", smooth)
    dataset = load(DataConfig(dataset=f"folder:{tmp_path}", image_size=16, color="grey"))
    difference = dataset.images("train", [0])[0, :, :, 0].astype(int) - smooth
    assert np.abs(difference).max() <= (8 if lossy else 0)


def test_grey_files_stay_grey(tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.png", pixels(number, 8, 8))
    assert load_folder(tmp_path).image_shape == (8, 8, 1)
    assert load_folder(tmp_path, color="rgb").image_shape == (8, 8, 3)


@pytest.mark.parametrize("limit", [0, 2**32])
def test_mixed_colours_name_two_files(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    for number in range(6):
        write(tmp_path / f"{number}.png", pixels(number, 8, 8, 3) if number else pixels(number, 8, 8))
    with pytest.raises(UserError, match=r"/(0.png is grey|\d.png is rgb) but .*/(0.png is grey|\d.png is rgb): "):
        load_folder(tmp_path)
    assert load_folder(tmp_path, color="grey").image_shape == (8, 8, 1)


@pytest.mark.parametrize("limit", [0, 2**32])
def test_images_smaller_than_the_crop_are_named(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    fill(tmp_path, 5)
    write(tmp_path / "small.png", pixels(0, 9, 5, 3))
    with pytest.raises(UserError, match="small.png: expected at least center_crop=8 pixels a side, received 9x5"):
        load_folder(tmp_path, center_crop=8)
    with pytest.raises(UserError, match="png: its 8x8 square does not fit into image_size=4"):
        load(DataConfig(dataset=f"folder:{tmp_path}", image_size=4, resize="pad"))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_truncated_files_are_named(tmp_path, extension):
    fill(tmp_path, 5)
    path = write(tmp_path / f"cut{extension}", pixels(0, 64, 64, 3))
    path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])
    with pytest.raises(UserError, match=f"cut{extension}: expected a whole image file"):
        load_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"some text", b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff" + bytes(9)],
                         ids=["empty", "text", "png", "jpeg"])
def test_empty_and_corrupt_files_are_named(tmp_path, content):
    fill(tmp_path, 5)
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match="bad.png: expected a whole image file"):
        load_folder(tmp_path)


def test_a_damaged_checksum_is_found(tmp_path):
    path = write(tmp_path / "bad.png", pixels(0, 64, 64, 3))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="bad.png: expected a whole image file"):
        decode(path, "bad.png")


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **{"format": "PNG"} | options)
    file.seek(0)
    return file


def rgba(alpha):
    return np.dstack([pixels(0), np.full((8, 8), alpha, np.uint8)])


def palette_with_transparency():
    image = Image.fromarray(pixels(0)).quantize(8)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


def test_opaque_alpha_is_dropped():
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(rgba(255))), "a"), pixels(0))
    grey = np.dstack([pixels(1, 8, 8), np.full((8, 8), 255, np.uint8)])
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey, "LA")), "a")[..., 0], pixels(1, 8, 8))


@pytest.mark.parametrize("image", [
    Image.fromarray(rgba(254)), Image.fromarray(np.zeros((8, 8, 2), np.uint8), "LA"), palette_with_transparency(),
], ids=["rgba", "grey", "palette"])
def test_transparent_pixels_are_refused(image):
    with pytest.raises(UserError, match="a.png: expected an opaque image, received transparent pixels"):
        decode(encoded(image), "a.png")


def test_palettes_and_bilevel():
    quantized = Image.fromarray(pixels(0)).quantize(16)
    np.testing.assert_array_equal(decode(encoded(quantized), "a"), np.asarray(quantized.convert("RGB")))
    bits = np.eye(8, dtype=bool)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(bits)), "a")[..., 0], 255 * bits)


def png16(channels):
    """A 16-bit PNG by hand (Pillow writes none in colour): 2x2 pixels of zeros."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 2, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = (b"\0" + bytes(2 * 2 * channels)) * 2
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
                      + chunk(b"IEND", b""))


@pytest.mark.parametrize("make, expected", [
    (lambda: png16(1), "received 16 bits"),
    (lambda: png16(3), "received 16 bits"),
    (lambda: png16(4), "received 16 bits"),
    (lambda: encoded(Image.new("F", (8, 8)), format="TIFF"), "received floats"),
    (lambda: encoded(Image.new("CMYK", (8, 8)), format="JPEG"), "received mode CMYK"),
], ids=["grey16", "rgb16", "rgba16", "float", "cmyk"])
@pytest.mark.parametrize("reader", [decode, verify])
def test_other_depths_and_modes_are_refused(make, expected, reader):
    with pytest.raises(UserError, match=f"a.png: expected 8-bit grey or RGB, {expected}"):
        reader(make(), "a.png")


def test_the_exif_orientation_is_honoured():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: to be turned by 90 degrees clockwise
    stored = pixels(0, 4, 8, 3)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(stored), exif=exif), "a"), np.rot90(stored, -1))


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    file = encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert set(np.unique(decode(file, "a"))) == {10}


def test_verify_agrees_with_decode():
    for image in (Image.fromarray(pixels(0, 5, 9, 3)), Image.fromarray(pixels(0, 5, 9)), Image.fromarray(rgba(255))):
        assert verify(encoded(image), "a") == decode(encoded(image), "a").shape
