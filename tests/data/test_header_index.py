"""Headers that are kept: files that have not changed are not opened again, those that have are."""

import os

import numpy as np
import pytest
from PIL import Image

from tfcq.data import header_index
from tfcq.data.folder import ImageFiles, find_images
from tfcq.data.formats import Formats
from tfcq.errors import UserError

WANTED = {("PNG", (4, 6, 3)): 3, ("BMP", (5, 5, 1)): 1}


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder with three PNG files and a BMP file; so few are kept, too."""
    monkeypatch.setattr(header_index, "WORTH_KEEPING", 1)
    (tmp_path / "images" / "a").mkdir(parents=True)
    for name in ("1.png", "a/2.png", "a/3.png"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "images" / name)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "images" / "4.bmp")
    return tmp_path / "images"


@pytest.fixture
def opened(monkeypatch):
    """The names of the files whose headers were read."""
    names, read = [], ImageFiles.format_and_shape

    def count(self, index):
        names.append(os.path.basename(self.paths[index]))
        return read(self, index)

    monkeypatch.setattr(ImageFiles, "format_and_shape", count)
    return names


def look(folder, cache, count=None):
    raw = ImageFiles(find_images(str(folder)).paths, str(folder))
    return dict(Formats.of([raw.select(np.arange(count or len(raw)))], "real", cache and str(cache)).counts)


def test_a_second_command_opens_only_what_has_changed(images, opened, tmp_path):
    cache = tmp_path / "cache"
    assert look(images, cache) == WANTED and sorted(opened) == ["1.png", "2.png", "3.png", "4.bmp"]
    opened.clear()
    assert look(images, cache) == WANTED and look(images, cache, 2) == {("PNG", (4, 6, 3)): 1, ("BMP", (5, 5, 1)): 1}
    assert opened == []
    status = os.stat(images / "a" / "3.png")
    Image.fromarray(np.zeros((7, 7), np.uint8)).save(images / "a" / "3.png")
    os.utime(images / "a" / "3.png", ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` would
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(images / "5.png")
    assert look(images, cache) == WANTED | {("PNG", (7, 7, 1)): 1} and sorted(opened) == ["3.png", "5.png"]
    opened.clear()
    look(images, cache)
    assert opened == []
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert look(images, cache)["PNG", (4, 6, 3)] == 3 and len(opened) == 5


def test_what_cannot_be_read_is_no_part_of_the_index(images, opened, tmp_path):
    (images / "broken.png").write_bytes(b"\x89PNG")
    for _ in range(2):
        with pytest.raises(UserError, match="broken.png"):
            look(images, tmp_path / "cache")
    assert opened.count("broken.png") == 2 and opened.count("1.png") == 1


def test_without_a_cache_or_where_none_can_be_written_all_are_opened(images, opened, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for cache in (None, None, tmp_path / "file" / "cache"):
        opened.clear()
        assert look(images, cache) == WANTED and len(opened) == 4
    assert "cannot be written" in capsys.readouterr().out
