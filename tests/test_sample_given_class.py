"""Images of one's own, taken to be of a class: `tfcq sample --like=FILE --class_name=NAME`, `tfcq encode`, pictures."""

import numpy as np
import pytest
import tiny_models as tiny
from commands import run_here
from PIL import Image

import tfcq
from tfcq.bulk.images import key_seeds
from tfcq.errors import UserError
from tfcq.evaluation.pictures import Pictures

SHAPE = (8, 8, 1)
NAMES = ("bag", "boot", "coat")
SMALL = {"flow_scales": 1, "flow_couplings": 1, "flow_blocks": 0, "quality_weight": 0.0, "latent_form": "vector"}


@pytest.fixture(scope="module", name="place")
def fixture_place(tmp_path_factory):
    """(a folder with the `run` of a CQF with classes and two images, its model)."""
    folder = tmp_path_factory.mktemp("given")
    np.savez(folder / "images.npz", train=tiny.images(SHAPE, 40), train_labels=np.array(NAMES)[np.arange(40) % 3])
    config = tiny.config(8, class_conditional=True, data={"dataset": f"npz:{folder}/images.npz"}, **SMALL)
    for name, image in zip("ab", tiny.images(SHAPE, 2, seed=5), strict=True):
        Image.fromarray(image[..., 0]).save(folder / f"{name}.png")
    return folder, tiny.make_workdir(folder / "run", config)


def nearly(one, other):
    """Whether uint8 images are equal but for the rounding of other batches."""
    return np.abs(one.astype(int) - other).max() <= 1


def expected_variations(model, image, number, count, strength):
    """By the model's own methods: of the way from the image to each of the class's samples."""
    seeds = tfcq.row_seeds(count, 3)
    samples = model.sample_class(np.full(count, number, np.int32), seeds)
    return model.interpolate_given_class(np.repeat(image, count, 0), samples, number, strength, True, seeds)


def test_variations_are_of_the_class(place, tmp_path):
    folder, model = place
    flags = [f"--workdir={folder}/run", f"--like={folder}/a.png", "--seed=3", "--num_samples=3", "--strength=0.4"]
    image = tiny.images(SHAPE, 2, seed=5)[:1]
    for name, number in (("boot", 1), ("2", 2)):
        status, _, errors = run_here("sample", *flags, f"--class_name={name}", f"--output={tmp_path}/{name}.npz")
        assert status == 0, errors
        assert nearly(np.load(tmp_path / f"{name}.npz")["images"], expected_variations(model, image, number, 3, 0.4))
    assert not nearly(np.load(tmp_path / "boot.npz")["images"], np.load(tmp_path / "2.npz")["images"])
    for output in ("no.png", "no.npz"):
        status, _, errors = run_here("sample", *flags, f"--output={tmp_path}/{output}")
        assert status == 2 and "interpolate" in errors and "\n" not in errors.strip() and "interpolate_given_class" in errors
    status, _, errors = run_here("sample", *flags, "--class_name=boot", f"--output={tmp_path}/some.png")
    assert status == 0 and (tmp_path / "some.png").is_file(), errors


def test_latents_are_of_the_class(place, tmp_path):
    folder, model = place
    flags = [f"--workdir={folder}/run", f"--images=folder:{folder}", "--seed=3", "--batch_size=2"]
    images = tiny.images(SHAPE, 2, seed=5)
    for name, number in (("boot", 1), ("2", 2)):
        status, _, errors = run_here("encode", *flags, f"--class_name={name}", f"--output={tmp_path}/{name}.npz")
        assert status == 0, errors
        with np.load(tmp_path / f"{name}.npz") as found:
            assert found["keys"].tolist() == ["a.png", "b.png"] and (found["unfit"] == "").all()
            expected = model.encode_given_class(images, number, key_seeds(found["keys"], 3))
            np.testing.assert_allclose(found["latents"], expected, rtol=1e-4, atol=1e-5)
    for more, said in (([], "encode_given_class"), (["--class_name=hat"], "class_name: expected one of bag, boot, coat")):
        status, _, errors = run_here("encode", *flags, *more, f"--output={tmp_path}/no.npz")
        assert status == 2 and said in errors and "\n" not in errors.strip()


def test_grids_have_reconstructions_given_the_images_own_classes(place, monkeypatch):
    folder, model = place
    dataset = tfcq.Run(folder / "run").data()
    asked = []
    monkeypatch.setattr(Pictures, "_run", lambda _, ability, images, classes, __: asked.append((ability, classes)) or images)
    grid = Pictures(model).reconstruction_grid_of(dataset, "test", 100, seed=3)
    own = dataset.classes_of("test", NAMES)
    assert grid is not None and [ability for ability, _ in asked] == ["reconstruct_given_class"]
    assert len(own) > 2 and len(set(own)) > 1
    np.testing.assert_array_equal(asked[0][1], own)
    monkeypatch.setattr(model, "class_names", ("bag", "boot"))  # of coats it has no class
    assert Pictures(model).reconstruction_grid_of(dataset, "test", 100) is None


def test_pictures_of_given_images_are_of_the_class(place):
    folder, model = place
    run, images = tfcq.Run(folder / "run"), tiny.images(SHAPE, 2, seed=5)

    def cells(mode, count, **options):
        """(the last ability by which the images of a picture are made, its images)."""
        drawn, run_ability = [], Pictures._run

        def remember(self, ability, *arrays):
            drawn.append((ability, run_ability(self, ability, *arrays)))
            return drawn[-1][1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pictures, "_run", remember)
            run.picture(mode, count, images=images, seed=3, checkpoint="last", class_name="coat", **options)
        return drawn[-1]

    ability, rebuilt = cells("reconstruct", 2)
    assert ability == "reconstruct_given_class"
    assert nearly(rebuilt, model.reconstruct_given_class(images, 2, tfcq.row_seeds(2, 3)))
    ability, between = cells("interpolate", 1)
    assert ability == "interpolate_given_class" and len(between) == 8
    ends = model.reconstruct_given_class(images, 2, tfcq.row_seeds(1, 3).repeat(2, 0))
    assert nearly(between[[0, -1]], ends)
    ability, varied = cells("variations", 3, strength=0.4)
    assert ability == "interpolate_given_class" and nearly(varied[1:], expected_variations(model, images[1:], 2, 3, 0.4))
    with pytest.raises(UserError, match="class_name: expected mode to be one of prior, variations, reconstruct"):
        run.picture("super_resolve", class_name="coat")


def test_variations_of_a_glf_go_to_samples_of_the_class_and_its_reconstructions_have_none():
    model = tiny.build(tiny.config(model="glf", class_conditional=True))
    tiny.perturb(model.trainable_variables)
    pictures, images = Pictures(model), tiny.images((4, 4, 1), 1)
    assert pictures.ability_of("variations", "one") == "interpolate"
    given, plain = (pictures.variation_grid(images, 2, 1.0, class_name=name) for name in ("one", ""))
    assert given.shape == plain.shape and (given != plain).any()
    with pytest.raises(UserError, match="does not support reconstruct_given_class"):
        pictures.reconstruction_grid(images, class_name="one")
