"""Variations and latents of a model that has latents: as its own methods give them, of a workdir and of its export."""

import numpy as np
import pytest
import tiny_models
from commands import assert_one_line, run_here
from grid_cells import cells
from PIL import Image

import tfcq
from tfcq.bulk.images import key_seeds
from tfcq.bulk.model import load
from tfcq.bulk.place import ModelPlace
from tfcq.exporting import card
from tfcq.exporting.signatures import ServingModule
from tfcq.randomness import row_seeds


@pytest.fixture(scope="module", name="there")
def fixture_there(tmp_path_factory):
    """A folder with `run`, its `export`, and two files of `images`, the second one larger."""
    there = tmp_path_factory.mktemp("latent")
    model = tiny_models.make_workdir(there / "run", tiny_models.config(model="vae"))
    module = ServingModule(model, 2)
    module.save(str(there / "export" / "1"), {name: module.signature(name) for name in ("sample", "interpolate", "encode")})
    (there / "images").mkdir()
    for number, image in enumerate(tiny_models.images(model.image_shape, 2)):
        picture = Image.fromarray(image[..., 0])
        picture.resize((picture.width << number, picture.height << number), 0).save(there / "images" / f"{number}.png")
    return there


def one(there, number):
    """An image as the model takes it, [1, H, W, 1]."""
    picture = np.asarray(Image.open(there / "images" / f"{number}.png"))
    return picture[None, :: 1 << number, :: 1 << number, None]


@pytest.mark.parametrize("place", ["--workdir={}/run", "--export={}/export"])
def test_variations_are_on_the_way_to_samples(there, tmp_path, place):
    flags = [place.format(there), "--seed=7", "--num_samples=6", "--batch_size=4", f"--output={tmp_path}/v.npz"]
    assert run_here("sample", *flags, f"--like={there}/images/1.png", "--strength=0.3")[0] == 0
    model, seeds = tfcq.Run(there / "run").model(), row_seeds(6, 7)
    others, like = model.sample(seeds), np.repeat(one(there, 1), 6, 0)
    expected = model.interpolate(like, others, 0.3, True, seeds)
    with np.load(tmp_path / "v.npz") as arrays:
        assert np.abs(arrays["images"].astype(int) - expected).max() <= 1  # a value at the edge of a bin
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]


def test_a_picture_of_variations_has_the_image_its_reconstruction_and_them(there, tmp_path):
    files = [f"{there}/images/{number}.png" for number in range(2)]
    flags = [f"--workdir={there}/run", "--num_samples=2", "--strength=0", f"--output={tmp_path}/v.png"]
    assert run_here("sample", *flags, f"--like={','.join(files)}")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "v.png"))
    height, width, _ = one(there, 0).shape[1:]
    assert height == width
    shown = cells(picture, 4, height).reshape(2, 4, height, width)
    model = tfcq.Run(there / "run").model()
    for number, row in enumerate(shown):
        assert np.array_equal(row[0], one(there, number)[0, ..., 0])
        rebuilt = model.decode(model.encode(one(there, number), row_seeds(1, 0)))[0, ..., 0]
        assert all(np.abs(cell.astype(int) - rebuilt).max() <= 1 for cell in row[1:])
    images = np.concatenate([one(there, 0), one(there, 1)])
    in_python = tfcq.Run(there / "run").picture("variations", 2, images=images, strength=0.0)
    assert np.array_equal(in_python[..., 0], picture)


def test_a_file_that_cannot_be_prepared_as_the_runs_images_is_named_with_what_they_are(there, tmp_path):
    Image.new("RGB", (40, 40), (200, 10, 10)).save(tmp_path / "red.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, received in (("red.png", "rgb"), ("text.png", "no PNG, JPEG, WEBP, BMP, TIFF, GIF or PPM")):
        status, errors = run_here("sample", f"--workdir={there}/run", f"--like={tmp_path}/{name}")[::2]
        said = f"{name}: expected an image that can be prepared as the run's, "
        assert_one_line(status, errors, said)
        assert f"received {received}" in errors and "color=source" in errors and "skip_broken" not in errors


def test_rows_between_files(there, tmp_path):
    files = f"{there}/images/0.png,{there}/images/1.png"
    assert run_here("sample", f"--workdir={there}/run", f"--interpolate={files}", f"--output={tmp_path}/b.png")[0] == 0
    found = np.asarray(Image.open(tmp_path / "b.png"))
    images = np.concatenate([one(there, 0), one(there, 1)])
    assert np.array_equal(found, tfcq.Run(there / "run").picture("interpolate", 1, images=images)[..., 0])


@pytest.mark.parametrize("place", ["--workdir={}/run", "--export={}/export"])
def test_latents_are_those_that_the_model_gives(there, tmp_path, place):
    flags = [place.format(there), f"--images=folder:{there}/images", "--seed=3", f"--output={tmp_path}/z.npz"]
    assert run_here("encode", *flags)[0] == 0
    model = tfcq.Run(there / "run").model()
    with np.load(tmp_path / "z.npz") as arrays:
        assert arrays["keys"].tolist() == ["0.png", "1.png"] and not any(arrays["unfit"])
        for number, (key, latents) in enumerate(zip(arrays["keys"], arrays["latents"], strict=True)):
            expected = model.encode(one(there, number), key_seeds([key], 3))[0]
            np.testing.assert_allclose(latents, expected, rtol=1e-5, atol=1e-6)


def test_an_export_prepares_images_as_its_run(tmp_path):
    config = tiny_models.config(model="vae", image_size=8, data={"color": "grey", "resize": "pad"})
    model = tiny_models.make_workdir(tmp_path / "run", config)
    module = ServingModule(model, 2)
    version = tmp_path / "export" / "1"
    module.save(str(version), {name: module.signature(name) for name in ("sample", "interpolate", "encode")})
    assert load(ModelPlace(export=version)).preparation == {}  # as of an older export
    card.write_preparation(version, config.data)
    smaller = np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(smaller).save(tmp_path / "photos" / "coloured.png")
    grey = np.pad((smaller @ np.array([299, 587, 114]) + 500) // 1000, ((0, 1), (0, 1)))
    expected = model.encode(grey[None, ..., None].astype(np.uint8), key_seeds(["coloured.png"], 0))
    for place in ("workdir", "export"):
        folder = tmp_path / {"workdir": "run"}.get(place, place)
        flags = [f"--{place}={folder}", f"--images={tmp_path}/photos", f"--output={tmp_path}/{place}.npz"]
        assert run_here("encode", *flags)[0] == 0
        with np.load(tmp_path / f"{place}.npz") as arrays:
            np.testing.assert_allclose(arrays["latents"], expected, rtol=1e-5, atol=1e-6)
        flags = [flags[0], f"--like={tmp_path}/photos/coloured.png", "--num_samples=2", f"--output={tmp_path}/{place}_like.npz"]
        assert run_here("sample", *flags)[0] == 0
    with np.load(tmp_path / "workdir_like.npz") as of_run, np.load(tmp_path / "export_like.npz") as of_export:
        assert (of_run["images"].astype(int) - of_export["images"]).max() <= 1
    (version / "assets.extra" / "preparation.json").write_text("{")
    status, _, errors = run_here("encode", f"--export={version}", f"--images={tmp_path}/photos", f"--output={tmp_path}/z.npz")
    assert_one_line(status, errors, "preparation.json: expected how images are prepared")


def test_what_a_model_lacks_or_a_file_is_said_in_a_line(there, place, tmp_path):
    of_images = [f"--images=folder:{there}/images", f"--output={tmp_path}/z.npz"]
    status, _, errors = run_here("encode", f"--export={place}/export", *of_images)
    assert_one_line(status, errors, "expected a model with the signature encode, received one with likelihood, sample")
    flags = [f"--workdir={there}/run", f"--output={tmp_path}/v.npz"]
    status, _, errors = run_here("sample", *flags, f"--like={tmp_path}/none.png")
    assert_one_line(status, errors, "expected the file of an image, found none at")
    (tmp_path / "no.png").write_bytes(b"no image")
    status, _, errors = run_here("sample", *flags, f"--like={tmp_path}/no.png")
    assert_one_line(status, errors, "no.png")
    assert not (tmp_path / "v.npz").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"images": []}, "images: expected an array uint8 .N, H, W, C., or the paths of files, at least one"),
        ({"images": [np.zeros((2, 2, 1), np.uint8)]}, "images: expected an array uint8"),
        ({"images": "none.png"}, "expected the file of an image, found none at .*none.png"),
        ({"images": np.zeros((1, 2, 2, 1), np.uint8)}, "images: expected uint8"),
        ({"strength": float("nan")}, "strength: expected a number from 0 to 1, received nan"),
        ({"mode": "prior"}, "images: expected a mode that shows given images"),
        ({"images": None}, "mode=variations: expected images"),
    ],
)
def test_images_that_are_no_images_are_refused(there, given, expected):
    arguments = {"mode": "variations", "num_samples": 1, "images": [f"{there}/images/0.png"]} | given
    with pytest.raises(tfcq.UserError, match=expected):
        tfcq.Run(there / "run").picture(**arguments)
