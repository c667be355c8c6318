"""Pictures, and a way to ask a model that is at no place, for the tests of the page."""

import pytest
from PIL import Image

from tfcq.bulk import model as models
from tfcq.bulk.place import ModelPlace
from tfcq.playground.model import Playground


@pytest.fixture(name="make")
def fixture_make(monkeypatch):
    """A function from a `Model` to a Playground of it."""

    def make(model, **data):
        monkeypatch.setattr(models, "load", lambda place: model)
        return Playground(ModelPlace(export="nowhere"), data)

    return make


@pytest.fixture(name="picture")
def fixture_picture(tmp_path):
    """The file of a colour picture of 20x16 pixels, all alike."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (20, 16), (200, 100, 50)).save(path)
    return path
