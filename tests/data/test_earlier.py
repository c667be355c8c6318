"""The images of a run without a list of them: where they may be, and what is said of numbers on them ever after."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tfcq import workdir as workdirs
from tfcq.config import Config, CQFConfig, DataConfig
from tfcq.config.evaluation import ImagesPlace
from tfcq.data import load, survey
from tfcq.errors import UserError
from tfcq.evaluation.run import _notes_of

UNCHECKED = "without a list of the run's images they were taken by their positions, unchecked"


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (4, 4)).astype(np.uint8)).save(path)


def make_run(place, **options):
    """The folder of a run on `place`/images."""
    data = DataConfig(dataset=f"folder:{place / 'images'}", image_size=4, **options)
    workdirs.open_for(Config(data=data, system=CQFConfig(latent_size=2)), place / "run")
    workdirs.keep_data(place / "run", load(data))
    return place / "run"


@pytest.fixture(name="images")
def fixture_images(tmp_path):
    for number in range(40):
        write(tmp_path / f"images/{number:02}.png", number)
    return tmp_path / "images"


@pytest.fixture(name="run")
def fixture_run(images):
    return make_run(images.parent)


def lose_list(run):
    (run / workdirs.MANIFEST).unlink()


def make_earlier(run):
    """Makes it a run of a version that knew nothing of its images but their numbers."""
    lose_list(run)
    facts = json.loads((run / "data.json").read_text())
    del facts["fingerprints"]
    (run / "data.json").write_text(json.dumps(facts))


def contents(dataset):
    return [dataset.images(split, range(dataset.num_images(split))).tobytes() for split in ("train", "validation", "test")]


def refusal(run, **place):
    with pytest.raises(UserError) as raised:
        workdirs.load_data(run, ImagesPlace(**place))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_lost_list_is_made_again_where_the_content_is_what_it_was(images, capsys, monkeypatch):
    monkeypatch.setattr(survey, "FOLDER", str(images.parent / "cache"))
    for number in (3, 17, 30):
        (images / f"{number:02}.png").write_bytes(b"broken")
    run = make_run(images.parent, skip_broken_images=True)
    before = contents(workdirs.load_data(run))
    lose_list(run)
    capsys.readouterr()
    dataset = workdirs.load_data(run)
    assert contents(dataset) == before and dataset.num_images("train") == 31  # without the broken ones, as it began
    assert "what is there has the content that they had" in capsys.readouterr().out and _notes_of(dataset) == []
    shutil.move(run.parent / "images", run.parent / "elsewhere")
    there = workdirs.load_data(run, ImagesPlace(dataset=f"folder:{run.parent / 'elsewhere'}"))
    assert contents(there) == before and _notes_of(there) == []


def test_a_lost_list_of_images_that_have_changed_is_not_passed_over(run):
    lose_list(run)
    write(run.parent / "images/05.png", 500)
    assert "some have another content, or another position, than they had; expected the same images" in refusal(run)
    dataset = workdirs.load_data(run, ImagesPlace(accept_changed_data=True))
    assert "was split anew" in _notes_of(dataset)[0]


def test_images_in_another_place_must_be_accepted_and_numbers_say_it(run):
    make_earlier(run)
    assert _notes_of(workdirs.load_data(run)) == [UNCHECKED]
    shutil.copytree(run.parent / "images", run.parent / "elsewhere")
    there = f"folder:{run.parent / 'elsewhere'}"
    message = refusal(run, dataset=there)
    assert f"dataset was folder:{run.parent / 'images'}, and is {there} now" in message
    assert "--accept_changed_data where the same images have moved there" in message
    notes = _notes_of(workdirs.load_data(run, ImagesPlace(dataset=there, accept_changed_data=True)))
    assert notes == [UNCHECKED.replace("unchecked", "in another place, unchecked")]


def test_what_was_split_anew_is_said_of_every_later_number(run, capsys):
    make_earlier(run)
    for number in range(40, 51):
        write(run.parent / f"images/{number}.png", number)
    assert "--accept_changed_data to split what is there anew" in refusal(run)
    anew = workdirs.load_data(run, ImagesPlace(accept_changed_data=True))
    assert "warning: " in capsys.readouterr().out
    for _ in range(2):  # it goes on once, and again
        workdirs.keep_data(run, anew, step=2)
        anew = workdirs.load_data(run)
    assert "no list" not in capsys.readouterr().out
    note, = _notes_of(anew)
    assert "split anew (they were train 32" in note and "may have trained on images of the test" in note
    (run / workdirs.MANIFEST).unlink()  # what is not known does not become known
    assert _notes_of(workdirs.load_data(run)) == [note]
