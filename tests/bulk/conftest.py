"""A run and its export, for the tests of both stages with a model."""

import pytest
import tiny_models
from PIL import Image

from tfcq.exporting.signatures import ServingModule


@pytest.fixture(scope="package", name="place")
def fixture_place(tmp_path_factory):
    """A folder with `run`, `export` (of the same model, of as many draws as a scoring of the run has) and 43 `images` of it."""
    place = tmp_path_factory.mktemp("place")
    model = tiny_models.make_workdir(place / "run", tiny_models.config(model="realnvp", flow_scales=1))
    module = ServingModule(model, 50)
    signatures = {name: module.signature(name) for name in ("sample", "likelihood")}
    module.save(str(place / "export" / "7"), signatures)
    place.joinpath("images").mkdir()
    for number, image in enumerate(tiny_models.images(model.image_shape, 43)):
        Image.fromarray(image[..., 0]).save(place / "images" / f"{number}.png")
    return place
