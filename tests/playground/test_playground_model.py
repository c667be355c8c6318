"""What the page asks of a model, and how pictures become its images."""

import numpy as np
import pytest
import tiny_models
from commands import run_here
from numpy_model import SHAPE, WITH_CLASSES, Model
from PIL import Image

from tfcq.bulk import read_parts
from tfcq.bulk.place import ModelPlace
from tfcq.errors import UserError
from tfcq.playground.model import Playground, about

GREY = (299 * 200 + 587 * 100 + 114 * 50 + 500) // 1000  # BT.601's luma of the picture's colour


def test_samples_are_those_of_the_seed(make):
    images = make(Model()).samples(3, 2.0, 5)
    assert images.dtype == np.uint8 and images.shape == (3, *SHAPE)
    assert images[:, 0, 0, 0].tolist() == [205, 215, 225]  # by the seeds (5, 0), (5, 1), (5, 2) and the temperature


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 1.0, 0), "number of images: expected at least 1, received 0"),
        ((65, 1.0, 0), "number of images: expected at most 64, received 65"),
        ((1, 1.0, -1), "seed: expected at least 0, received -1"),
        ((1, 1.0, 2**31), "must fit int32"),
        ((1, -0.5, 0), "temperature: expected a number of at least 0, received -0.5"),
        ((1, float("nan"), 0), "temperature: expected a number of at least 0, received nan"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_numbers_out_of_bounds_are_one_line(make, arguments, expected):
    with pytest.raises(UserError) as raised:
        make(Model()).samples(*arguments)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_classes_are_chosen_and_told_by_name_or_by_number(make):
    named = make(Model(WITH_CLASSES, class_names=("7", "boot", "0")))  # the class named 0 has the number 2
    assert named.classes == ["7", "boot", "0"]
    assert [named.samples(2, 1.0, 5, name)[1, 0, 0, 0] for name in ("7", "boot", "0", "1", "")] == [0, 1, 2, 1, 115]
    assert named.class_probabilities(np.zeros(SHAPE, np.uint8)) == {"7": 0.25, "boot": 0.75, "0": 0.0}
    with pytest.raises(UserError, match="class_name: expected one of 7, boot, 0, or a number from 0 to 2, received 'bag'"):
        named.samples(2, 1.0, 5, "bag")
    numbered = make(Model(WITH_CLASSES, num_classes=3))  # an export of an earlier version
    assert numbered.classes == ["0", "1", "2"] and numbered.samples(1, 1.0, 0, "2")[0, 0, 0, 0] == 2
    assert numbered.class_probabilities(np.zeros(SHAPE, np.uint8)) == {"0": 0.25, "1": 0.75, "2": 0.0}
    assert make(Model()).classes == []


def test_a_picture_is_cut_resized_and_made_grey(make, picture):
    image = make(Model()).prepared(picture, "likelihood")
    assert image.shape == SHAPE and np.unique(image).tolist() == [GREY]
    striped = np.zeros((16, 20, 3), np.uint8)
    striped[:, 2:10] = 255  # the largest square begins at column 2
    Image.fromarray(striped).save(picture)
    assert make(Model()).prepared(picture, "likelihood")[0, :, 0].tolist() == [255] * 4 + [0] * 4
    assert make(Model(), center_crop=8).prepared(picture, "likelihood")[0, :, 0].tolist() == [255] * 4 + [0] * 4
    assert make(Model(), center_crop=8, resize="pad").prepared(picture, "likelihood").shape == SHAPE
    assert make(Model()).prepared(picture, "super_resolve", "compressed").shape == (4, 4, 1)


def test_a_picture_that_cannot_be_used_is_one_line_with_its_name_alone(make, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(deep)
    Image.new("L", (9, 9), 0).save(tmp_path / "black.png")
    with pytest.raises(UserError, match="^black.png and the images after it: every pixel is 0"):
        make(Model()).prepared(tmp_path / "black.png", "likelihood")
    for path, note in ((text, "no PNG, JPEG, WEBP, BMP, TIFF, GIF or PPM"), (deep, "16 bits a channel")):
        with pytest.raises(UserError) as raised:
            make(Model()).prepared(path, "likelihood")
        start = f"{path.name}: expected an image that can be prepared as the run's, 8x8 in grey ("
        assert str(raised.value).startswith(start) and str(raised.value).endswith(f"), received {note}")


def test_what_the_model_can_do(make, picture):
    playground = make(Model())
    image = playground.prepared(picture, "reconstruct")
    assert (playground.scores, playground.rebuilt, playground.score_endpoint) == (True, ["reconstruct"], "likelihood")
    assert np.unique(playground.rebuild("reconstruct", image)).tolist() == [GREY // 2]
    between = playground.between(np.zeros(SHAPE, np.uint8), np.full(SHAPE, 80, np.uint8), 5, True)
    assert between[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80]
    asked = playground.asked.asked[-1][1]
    assert asked["spherical"].tolist() == [True] * 5 and asked["seed"].tolist() == [[0, 0]] * 5
    drawn = playground.super_resolve(np.full((4, 4, 1), 9, np.uint8), 3, seed=2)
    assert drawn.shape == (3, *SHAPE) and drawn[:, 0, 0, 0].tolist() == [9, 10, 11]
    little = make(Model({"sample"}))
    assert (little.scores, little.rebuilt, little.can("sample"), little.can("interpolate")) == (False, [], True, False)


def test_a_run_says_what_it_is_and_a_picture_has_the_numbers_of_tfcq_score(tmp_path, picture):
    tiny_models.make_workdir(tmp_path / "mine", tiny_models.config(8, model="vae", data={"color": "grey"}))
    playground = Playground(ModelPlace(workdir=tmp_path / "mine"))
    said = about(playground)
    assert said.name == "mine" and said.card == ""
    assert "A vae model, trained on 1,439 images of digits: 8x8 pixels, grey." == said.sentences[0]  # 1,797 less 179 and 179
    assert said.sentences[1].startswith("Of 20,000 planned steps it is shown at step 1"), said
    numbers = playground.numbers_of(playground.prepared(picture, playground.score_endpoint))
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture.rename(folder / "picture.png")
    flags = [f"--workdir={tmp_path}/mine", f"--images=folder:{folder}", f"--output={tmp_path}/scores", "--held_out=none"]
    assert run_here("score", *flags)[0] == 0
    (expected,) = read_parts(tmp_path / "scores")
    assert numbers.pop("key") == expected.pop("key") == "picture.png" and {"bits_per_dim", "complexity"} <= set(numbers)
    assert numbers == pytest.approx(expected, rel=1e-5)


def test_a_server_and_an_export_say_what_is_known(make, tmp_path):
    playground = make(Model())
    playground.place = ModelPlace(server="localhost:8500/cqf")
    assert about(playground).sentences == ["A model that is served at localhost:8500: version 7."]
    (tmp_path / "cqf" / "7").mkdir(parents=True)
    (tmp_path / "cqf" / "7" / "saved_model.pb").touch()
    (tmp_path / "cqf" / "7" / "MODEL_CARD.md").write_text("# cqf\n")
    playground.place = ModelPlace(export=tmp_path / "cqf")
    said = about(playground)
    assert (said.name, said.sentences, said.card) == ("cqf", ["An exported model: version 7."], "# cqf\n")
