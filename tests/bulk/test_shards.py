"""Shards of rows, and the flags of the commands that compute one: what is wrong is refused before anything is loaded."""

import re
import sys

import pytest
from commands import assert_one_line, run_here

from tfcq.bulk import flags as bulk_flags
from tfcq.bulk.shards import Shard
from tfcq.command_line import starting
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4/4", "received '4/4': shards are counted from 0, and the last of 4 is 3/4"),
        ("0/0", "expected i/n with i from 0 to n - 1, received '0/0'"),
        ("/16", "received '/16' (is a variable in it unset?)"),
        ("-1/4", "received '-1/4'"),
        ("1", "such as 0/16, received '1'"),
    ],
)
def test_a_wrong_shard(text, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        Shard.parse(text)


def test_shards_share_all_rows():
    for count, total in ((10, 4), (7, 7), (10**9, 1000), (2**31, 3)):
        ranges = [Shard(index, total).rows(count) for index in range(total)]
        assert ranges[0].start == 0 and ranges[-1].stop == count
        assert all(one.stop == following.start for one, following in zip(ranges, ranges[1:]))
        assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("sample", ["--shard=4/4", "--workdir=a"], "shard: expected i/n"),
        ("sample", ["--shard=0/4", "--workdir=a"], "expected --output=DIR, the folder for the parts"),
        ("sample", ["--shard=0/4", "--workdir=a", "--output=out"], "workdir a: expected a trained run"),
        ("sample", ["--shard=0/4", "--output=out"], "expected one of --workdir=DIR of a trained run, --export=DIR"),
        ("sample", ["--shard=0/4", "--mode=reconstruct"], "mode: expected prior or variations, or --output=FILE.png"),
        ("sample", ["--output=out/", "--mode=reconstruct"], "mode: expected prior or variations, or --output=FILE.png"),
        ("sample", ["--mode=variations"], "mode=variations: expected --like=FILE"),
        ("sample", ["--like=a.png,b.png", "--output=out"], "like: expected one file for files of images, received 2"),
        ("sample", ["--interpolate=a.png", "--output=out.png"], "interpolate: expected files in pairs, FILE,FILE, received 1"),
        ("sample", ["--interpolate=a,b", "--mode=prior"], "interpolate: expected --mode=interpolate, interpolate_outer or none"),
        ("sample", ["--like=a", "--mode=prior", "--output=out"], "like: mode=prior shows no given images"),
        ("sample", ["--like=a,b,c", "--mode=interpolate"], "like: expected files in pairs with --mode=interpolate, received 3"),
        ("sample", ["--like=", "--output=out"], "like: expected the file of an image, received none"),
        ("sample", ["--workdir=a", "--output=out.png", "--format=npz"], "format: expected it with --output=DIR"),
        ("sample", ["--workdir=a", "--output=out", "--strength=0.2"], "strength: expected it with --like=FILE alone"),
        ("sample", ["--workdir=a", "--output=out", "--split=train"], "split: a picture alone shows such images"),
        ("sample", ["--shard=0/2", "--export=model", "--output=out.npz"], "output out.npz: expected the name of a folder"),
        ("sample", ["--interpolate=a,b", "--like=a"], "expected either --like or --interpolate, received both"),
        ("sample", ["--export=model", "--output=out.npz", "--format=png"], "format: expected it with --output=DIR"),
        ("sample", ["--export=model", "--output=out", "--other_dataset=digits"], "other_dataset: a picture alone"),
        ("sample", ["--workdir=a", "--output=out.gif"], "output out.gif: expected a picture (.png, .jpg"),
        ("sample", ["--workdir=a", "--output=out.NPZ"], "output out.NPZ: expected a name that ends in .npz, in small letters"),
        ("sample", ["--workdir=a", "--output=model/"], "found other files in it, such as saved_model.pb"),
        ("encode", ["--images=model/saved_model.pb", "--export=model", "--output=a.npz"], "saved_model.pb', which is a file"),
        ("sample", ["--export=model", "--output=a.npz", "--strength=1.5", "--like=a"], "strength=1.5: 1.5 is not a number in"),
        ("encode", ["--images=folder:a", "--export=model"], "expected --output=FILE.npz"),
        ("encode", ["--images=folder:a", "--export=model", "--output=out"], "output out: expected a file that ends in .npz"),
        ("encode", ["--export=model", "--output=out.npz"], "expected --images=folder:DIR or another data set"),
        ("sample", ["--shard=0/4", "--workdir=a", "--output=out", "--temperature=nan"], "nan: expected a finite number"),
        ("sample", ["--shard=0/4", "--ray=4", "--workdir=a", "--output=out"], "expected either --shard=i/n, one shard, or --ray"),
        ("sample", ["--export=a", "--output=out.png"], "export: a picture is drawn of a run, --workdir=DIR; expected"),
        ("sample", ["--shard=0/4", "--export=a", "--output=out"], "export a: expected an exported model"),
        ("sample", ["--shard=0/4", "--export=model", "--output=out", "--checkpoint=last"], "checkpoint: expected it with"),
        ("score", ["--workdir=a", "--output=out"], "expected --images=folder:DIR or another data set"),
        ("score", ["--images=folder:a", "--workdir=a"], "expected --output=DIR"),
        ("score", ["--images=folder:a", "--export=model", "--workdir=a", "--output=out"], "received --workdir and --export"),
        ("score", ["--images=folder:a", "--export=model", "--output=model/saved_model.pb"], "output: expected a folder"),
        ("score", ["--images=folder:a", "--export=model", "--output=out", "--ray=2"], "pip install 'tfcq[ray]'"),
    ],
)
def test_wrong_flags_are_refused_before_tensorflow(monkeypatch, tmp_path, name, arguments, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    monkeypatch.setattr(starting, "start_tensorflow", lambda: pytest.fail("TensorFlow was started"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"")
    status, _, errors = run_here(name, *arguments)
    assert_one_line(status, errors, expected)
    assert not (tmp_path / "out").exists()


def test_a_folder_alone_is_all_images_below_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    flags = Flags()
    bulk_flags.define_images(flags)
    flags.parse([])
    for place in ("photos", "folder:photos", f"{tmp_path}/photos"):
        assert bulk_flags.images_place(flags, place)["dataset"] == f"folder:{tmp_path}/photos"
