"""What a scoring asks of a model, and of which images, with models of a few lines of NumPy."""

import cloudpickle
import numpy as np
import pytest
from test_bulk import NAMES, SHAPE, STAGES, Model, compute, fixture_model, rows_of, write_images  # noqa: F401 - a fixture

from tfcq.bulk import images as keyed
from tfcq.bulk import model as models
from tfcq.bulk.complexity import complexity
from tfcq.config import DataConfig
from tfcq.errors import UserError


class Latents(Model):
    """A model of latents that reconstructs."""

    endpoints = frozenset({"sample", "latent_likelihood", "energy", "reconstruct"})

    def ask(self, endpoint, **arrays):
        pixels = arrays["images"].astype(np.float32).mean((1, 2, 3))
        return {
            "latent_likelihood": {"latent_log_prob": -pixels, "reconstruction_error": pixels + 1},
            "energy": {"energy": pixels + 2},
        }[endpoint]


class Reconstructs(Model):
    endpoints = frozenset({"likelihood", "reconstruct"})

    def ask(self, endpoint, **arrays):
        return {"images": arrays["images"] // 2} if endpoint == "reconstruct" else super().ask(endpoint, **arrays)


def scores(tmp_path, monkeypatch, one, **options):
    write_images(tmp_path / "images", NAMES)
    monkeypatch.setattr(models, "load", lambda place: one)
    compute(STAGES["likelihood"](tmp_path, **options), tmp_path / "out", 1)
    images = keyed.KeyedImages(DataConfig(dataset=f"folder:{tmp_path}/images", image_size=4), SHAPE, False).take(0, 11)[1]
    return rows_of(tmp_path / "out"), images


def test_all_scores_that_a_model_has(tmp_path, monkeypatch):
    rows, images = scores(tmp_path, monkeypatch, Latents())
    for row, image, bits in zip(rows, images, complexity(images), strict=True):
        mean = float(image.astype(np.float32).mean())
        expected = {"latent_log_prob": -mean, "reconstruction_error": mean + 1, "energy": mean + 2, "complexity": bits}
        assert {name: row[name] for name in row if name != "key"} == pytest.approx(expected, rel=1e-6)


def test_a_reconstruction_has_an_error_where_the_model_says_none(tmp_path, monkeypatch):
    rows, images = scores(tmp_path, monkeypatch, Reconstructs())
    expected = [np.square((image.astype(float) - image // 2) / 256).sum() for image in images]
    np.testing.assert_allclose([row["reconstruction_error"] for row in rows], expected, rtol=1e-12)


def test_repeats_have_draws_of_their_own_and_a_standard_error(tmp_path, monkeypatch):
    one = Reconstructs()
    rows, images = scores(tmp_path, monkeypatch, one, num_repeats=3)
    for row, image in zip(rows, images, strict=True):
        seeds = np.concatenate([keyed.key_seeds([row["key"]], 0, repeat) for repeat in range(3)])
        assert len({tuple(seed) for seed in seeds}) == 3
        drawn = one.ask("likelihood", images=np.stack([image] * 3), seed=seeds)["log_prob"].astype(np.float64)
        assert row["log_prob"] == pytest.approx(drawn.mean(), rel=1e-12)
        assert row["log_prob_standard_error"] == pytest.approx(drawn.std(ddof=1) / 3**0.5, rel=1e-12)
    with pytest.raises(UserError, match="with num_repeats=3, and this one has num_repeats=1"):
        scores(tmp_path, monkeypatch, one)


def test_a_model_without_any_score_is_refused(tmp_path, monkeypatch):
    one = Model()
    one.endpoints = frozenset({"sample", "decode"})
    with pytest.raises(UserError, match="expected a model with one of likelihood, latent_likelihood, energy, received one with"):
        scores(tmp_path, monkeypatch, one)


def test_a_list_of_files(tmp_path):
    write_images(tmp_path / "images", [*NAMES, "x\x85y.png".encode()])
    listed = tmp_path / "lists" / "list.txt"
    listed.parent.mkdir()
    absolute = str(tmp_path / "images" / "a" / "z.png")
    lines = ["../images/top.png", absolute, "../images/x\x85y.png"]
    listed.write_bytes("\ufeff../images/top.png\r\n\r\n".encode() + "\n".join(lines[1:]).encode())

    def images():
        return keyed.KeyedImages(DataConfig(dataset=f"list:{listed}", image_size=4), SHAPE, False)

    keys, taken, _ = images().take(0, 3)
    assert keys == lines and len(images()) == 3
    whole = keyed.KeyedImages(DataConfig(dataset=f"folder:{tmp_path}/images", image_size=4), SHAPE, False)
    of = dict(zip(*whole.take(0, 12)[:2]))
    np.testing.assert_array_equal(taken, [of["top.png"], of["a/z.png"], of["x\x85y.png"]])
    for text, message in (
        ("../images/top.png\n../images/gone.png\n", "1 of 2 files are not there, such as .*gone.png"),
        ("\n", "expected the path of an image a line, found none"),
        ("a.png\nb.png\na.png\n", r"expected each path once, found a.png again \(1 such lines\)"),
    ):
        listed.write_text(text)
        with pytest.raises(UserError, match=message):
            images()


def test_one_split_of_several(tmp_path):
    splits = {"train": np.full((3, 4, 4, 1), 7, np.uint8), "test": np.full((2, 4, 4, 1), 9, np.uint8)}
    np.savez(tmp_path / "two.npz", **splits)

    def images(only):
        return keyed.KeyedImages(DataConfig(dataset=f"npz:{tmp_path}/two.npz", image_size=4), SHAPE, False, only)

    assert (len(images("")), len(images("test"))) == (5, 2) and images("test").take(0, 2)[1].min() == 9
    with pytest.raises(UserError, match="two.npz: expected one split or one of the name validation, found train, test"):
        images("validation")


def test_a_stage_travels_whatever_it_has_opened(tmp_path):
    write_images(tmp_path / "images", NAMES)
    one = STAGES["likelihood"](tmp_path)
    assert one.count == 11 and "asked" in one.__dict__
    other = cloudpickle.loads(cloudpickle.dumps(one))
    assert other == one and not {"asked", "images"} & other.__dict__.keys()


def test_repeats_of_a_model_without_a_likelihood_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="num_repeats=2: repeats are of likelihoods, and this model has none"):
        scores(tmp_path, monkeypatch, Latents(), num_repeats=2)


def test_held_out_images_are_spread_over_a_data_set(tmp_path):
    write_images(tmp_path / "images", NAMES)
    all_of_them = keyed.KeyedImages(DataConfig(dataset=f"folder:{tmp_path}/images", image_size=4), SHAPE, False)
    names = all_of_them.take(0, 11)[0]
    some = keyed.SpreadImages(all_of_them, 3)
    keys, images, unfit = some.take(0, 3)
    assert keys == [names[0], names[5], names[10]] and not unfit and len(some) == 3
    np.testing.assert_array_equal(images, all_of_them.take(0, 11)[1][[0, 5, 10]])
    assert keyed.SpreadImages(all_of_them, 100).take(0, 11)[0] == names
