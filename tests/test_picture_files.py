"""Pictures by the ending of their names: read back by Pillow, or refused before anything is drawn."""

import os

import numpy as np
import PIL.Image
import pytest

from tfcq import picture_files
from tfcq.errors import UserError

RAMP = np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "format_", "tolerance"),
    [
        ("grid.png", "PNG", 0),
        ("grid.PNG", "PNG", 0),
        ("a.b/my grid.Png", "PNG", 0),
        ("grid.webp", "WEBP", 0),
        # At quality 95 the steps of the coefficients are at most 12 (a tenth of the table of JPEG's annex K), so their errors,
        # and by Parseval the pixels' root mean square, at most 6; 1 more for rounding of the colours.
        ("grid.jpg", "JPEG", 7),
        ("grid.JPEG", "JPEG", 7),
    ],
)
def test_the_ending_decides_the_format(tmp_path, name, format_, tolerance, channels):
    picture = COLOURS[..., :channels]
    path = tmp_path / name
    picture_files.check_name(str(path))
    picture_files.write(str(path), picture)
    with PIL.Image.open(path) as read:
        assert read.format == format_ and read.mode in ({"L", "RGB"} if format_ == "WEBP" else {{1: "L", 3: "RGB"}[channels]})
        found = np.asarray(read if format_ != "WEBP" or channels == 3 else read.convert("L")).reshape(picture.shape)
    assert np.sqrt(np.mean(np.square(found.astype(float) - picture))) <= tolerance
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("grid", "received no ending; expected grid.png"),
        ("grid.", "received '.'"),
        ("grid.tif", "expected a name that ends in .png, .jpg, .jpeg, .webp, received '.tif'"),
        ("grid.eps", "received '.eps'"),
        ("grid.png.gz", "received '.gz'"),
        (".png", "received no ending"),
        ("folder/", "received a folder"),
        (".", "received a folder"),
        ("", "no ending"),
    ],
    ids=repr,
)
def test_other_names_are_refused(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    for call in (lambda: picture_files.check_name(name), lambda: picture_files.write(name, COLOURS)):
        with pytest.raises(UserError) as caught:
            call()
        assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_picture_too_large_for_its_format(tmp_path):
    wide = np.zeros((1, 70_000, 1), np.uint8)
    for name, format_ in (("wide.jpg", "JPEG"), ("wide.webp", "WEBP")):
        with pytest.raises(UserError, match=f"{format_} cannot hold 70000x1 pixels .* expected .png"):
            picture_files.write(tmp_path / name, wide)
    assert not os.listdir(tmp_path)
    picture_files.write(tmp_path / "wide.png", wide)
