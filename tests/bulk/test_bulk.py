"""Jobs, shards and parts, with a model of a few lines of NumPy: whatever is killed, damaged or mixed up, no wrong row is read."""

import gzip
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
import types

import numpy as np
import pytest
from commands import REPOSITORY
from PIL import Image

from tfcq.bulk import images as keyed
from tfcq.bulk import model as models
from tfcq.bulk import read_parts
from tfcq.bulk.image_stages import Encoding, Scoring
from tfcq.bulk.job import Job, read
from tfcq.bulk.parts import Part
from tfcq.bulk.place import ModelPlace
from tfcq.bulk.running import Work
from tfcq.bulk.shards import Shard
from tfcq.bulk.stages import Sampling
from tfcq.config import DataConfig
from tfcq.errors import UserError
from tfcq.machine import files, paths
from tfcq.seeds import row_seeds

SHAPE = (4, 4, 1)
PLACE = ModelPlace(export="nowhere")


class Model:
    """Answers by NumPy; remembers the batches that it was asked for."""

    digest, config, preparation, endpoints = "0" * 32, None, {}, frozenset({"sample", "likelihood", "encode", "interpolate"})

    def __init__(self):
        self.asked = []

    def image_shape(self, endpoint):
        return SHAPE

    def ask(self, endpoint, **arrays):
        self.asked.append(arrays)
        seed = arrays["seed"]
        if endpoint == "sample":
            numbers = (seed.astype(np.int64) @ [7, 31])[:, None, None, None]
            return {"images": ((numbers + np.arange(16).reshape(SHAPE)) % 256).astype(np.uint8)}
        if endpoint == "encode":
            latents = [1e-9 * seed.sum(1, dtype=np.int64), arrays["images"].mean((1, 2, 3))]
            return {"latents": np.stack(latents, -1).astype(np.float32)}
        log_prob = np.float32(1e-9) * seed.sum(1, dtype=np.int64) + arrays["images"].mean((1, 2, 3), dtype=np.float32)
        return {"log_prob": log_prob.astype(np.float32), "bits_per_dim": (log_prob / 3).astype(np.float32)}


@pytest.fixture(autouse=True, name="model")
def fixture_model(monkeypatch):
    """The model at every place."""
    one = Model()
    monkeypatch.setattr(models, "load", lambda place: one)
    return one


def write_images(folder, names):
    """An image of its own for each name, in this order."""
    for name in names:
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        values = np.frombuffer(name.rjust(16, b"."), np.uint8)[-16:].reshape(4, 4)
        with open(path, "wb") as file:
            Image.fromarray(values).save(file, "png")


def at_an_address():
    """A new folder in TensorFlow's memory."""
    return paths.as_path(f"ram://bulk/{os.urandom(6).hex()}")


NAMES = [b"b/%d.png" % number for number in range(9)] + [b"a/z.png", b"top.png"]
STAGES = {
    "sample": lambda folder, **options: Sampling(PLACE, batch_size=4, num_samples=11, **options),
    "png": lambda folder, **options: Sampling(PLACE, batch_size=4, num_samples=11, files="png", **options),
    "tfrecord": lambda folder, **options: Sampling(PLACE, batch_size=4, num_samples=11, files="tfrecord", **options),
    "encode": lambda folder, **options: Encoding(PLACE, batch_size=4, data={"dataset": f"folder:{folder}/images"}, **options),
    "likelihood": lambda folder, **options: Scoring(PLACE, batch_size=4, data={"dataset": f"folder:{folder}/images"}, **options),
}


@pytest.fixture(params=STAGES, name="stage")
def fixture_stage(request, tmp_path):
    """A function from a stage's options to the stage, of 11 rows."""
    write_images(tmp_path / "images", NAMES)
    return lambda **options: STAGES[request.param](tmp_path, **options)


def rows_of(folder):
    results = list(read_parts(folder))
    if "keys" in results[0]:
        joined = {name: np.concatenate([part[name] for part in results]).tolist() for name in results[0]}
        return [{"key": key, "latents": row} for key, row in zip(joined["keys"], joined["latents"], strict=True)]
    return np.concatenate(results).tolist() if isinstance(results[0], np.ndarray) else results


def compute(stage, folder, parts, indices=None):
    """Whether each part was computed, the last shard first."""
    work = Work(stage, parts, folder)
    return [work.compute(index) for index in (reversed(range(parts)) if indices is None else indices)]


def test_shards_are_together_what_one_is(stage, tmp_path, model):
    compute(stage(), tmp_path / "one", 1)
    model.asked.clear()
    compute(stage(), tmp_path / "many", 4)
    assert rows_of(tmp_path / "many") == rows_of(tmp_path / "one") and len(rows_of(tmp_path / "one")) == 11
    # Batches of one length, each row at its own place: rounding may depend on both.
    assert {len(arrays["seed"]) for arrays in model.asked} == {4}
    places = {tuple(seed): place for arrays in model.asked for place, seed in enumerate(arrays["seed"]) if seed.any()}
    if "images" in model.asked[0]:
        rows = enumerate(rows_of(tmp_path / "one"))
        assert places == {tuple(keyed.key_seeds([row["key"]], 0)[0]): number % 4 for number, row in rows}
    else:
        assert places == {(0, number): number % 4 for number in range(1, 11)}


def test_parts_at_an_address_are_those_of_a_folder(stage, tmp_path):
    there = at_an_address()
    compute(stage(), tmp_path / "here", 3)
    assert compute(stage(), there, 3) == [True] * 3 and compute(stage(), there, 3) == [False] * 3
    assert rows_of(there) == rows_of(tmp_path / "here") == rows_of(str(there))
    names = sorted(path.name for path in there.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "here").iterdir())
    damaged = Part(read(there), Shard(1, 3), there).format.files()[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"^{there}: expected 3 parts, 1 of them cannot be used: 1/3 .it is damaged"):
        rows_of(there)
    assert compute(stage(), there, 3) == [False, True, False] and rows_of(there) == rows_of(tmp_path / "here")


def test_an_export_is_the_same_one_at_an_address(tmp_path):
    for folder in (tmp_path, there := at_an_address()):
        (folder / "variables").mkdir()
        (folder / "saved_model.pb").write_bytes(b"graph")
        (folder / "variables" / "variables.index").write_bytes(b"index")
    assert models._digest_of_files(there) == models._digest_of_files(tmp_path)


def test_a_sampling_has_the_images_of_its_seeds(tmp_path, model):
    compute(Sampling(PLACE, seed=5, batch_size=4, num_samples=10, temperature=0.5), tmp_path, 3)
    expected = Model().ask("sample", seed=row_seeds(10, 5))["images"]
    assert np.array_equal(np.concatenate(list(read_parts(tmp_path))), expected)
    assert {value for arrays in model.asked for value in arrays["temperature"]} == {0.5}
    with np.load(tmp_path / "part-00001-of-00003.npz") as part:
        assert part.files == ["images"] and np.array_equal(part["images"], expected[3:6])


def test_a_scoring_has_each_image_under_its_path_with_a_seed_of_its_own(tmp_path, model):
    write_images(tmp_path / "images", NAMES)
    compute(Scoring(PLACE, seed=3, data={"dataset": f"folder:{tmp_path}/images"}), tmp_path / "out", 2)
    rows = rows_of(tmp_path / "out")
    assert [row["key"] for row in rows] == ["a/z.png", *(f"b/{number}.png" for number in range(9)), "top.png"]
    for row in rows:
        image = np.asarray(Image.open(tmp_path / "images" / row["key"]))[None, ..., None]
        expected = Model().ask("likelihood", images=image, seed=keyed.key_seeds([row["key"]], 3))
        assert {name: np.float32(row[name]) for name in expected} == {name: value[0] for name, value in expected.items()}


def test_an_image_keeps_its_seed_whatever_others_there_are():
    # printf 3/a.png | b2sum -l 64
    assert keyed.key_seeds(["x.png", "a.png"], 3)[1].tobytes().hex() == "2995b75a3f504ba9"
    seeds = keyed.key_seeds([f"{number}.png" for number in range(1000)], 0)
    assert seeds.shape == (1000, 2) and seeds.dtype == np.int32 and len(np.unique(seeds, axis=0)) == 1000
    assert not np.array_equal(keyed.key_seeds(["a"], 0), keyed.key_seeds(["a"], 1))


def test_neither_the_order_on_disk_nor_odd_names_nor_the_time_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(gzip, "time", types.SimpleNamespace(time=itertools.count(10**9).__next__))
    odd = [b'q"uote,comma.png', b"new\nline.png", b"\xff\xfe.png", "ü ☃.png".encode(), b"[a]*?.png", *NAMES]
    write_images(tmp_path / "one", odd)
    write_images(tmp_path / "other", odd[::-1])
    for name in ("one", "other"):
        compute(Scoring(PLACE, data={"dataset": f"folder:{tmp_path}/{name}"}), tmp_path / f"out_{name}", 3)
    parts = [{path.name: path.read_bytes() for path in (tmp_path / f"out_{name}").glob("part-*")} for name in ("one", "other")]
    assert parts[0] == parts[1] and len(parts[0]) == 6
    assert {os.fsencode(row["key"]) for row in rows_of(tmp_path / "out_one")} == set(odd)


def test_arrays_have_numbers_and_splits_for_keys_and_count_by_their_pixels(tmp_path):
    images = np.arange(20, dtype=np.uint8).reshape(5, 2, 2, 1) * 12
    np.savez(tmp_path / "a.npz", train=images[:3], test=images[3:])
    found = keyed.KeyedImages(DataConfig(dataset=f"npz:{tmp_path}/a.npz", image_size=4), (4, 4, 1), False)
    keys, taken, unfit = found.take(2, 4)
    assert keys == ["train/image 2", "test/image 0"] and not unfit
    assert np.array_equal(taken[:, ::2, ::2, 0], images[2:4, ..., 0])  # twice as large
    np.savez(tmp_path / "b.npz", train=images[:3], test=images[3:] + 1)
    other = keyed.KeyedImages(DataConfig(dataset=f"npz:{tmp_path}/b.npz", image_size=4), (4, 4, 1), False)
    assert other.digest != found.digest
    np.savez(tmp_path / "c.npz", images=images.repeat(3, axis=3))
    with pytest.raises(UserError, match="c.npz, array images is rgb but what the model was trained on is grey"):
        keyed.KeyedImages(DataConfig(dataset=f"npz:{tmp_path}/c.npz", image_size=4), (4, 4, 1), False)


def test_an_image_that_cannot_be_used_ends_the_shard_or_has_its_reason(tmp_path):
    write_images(tmp_path / "images", NAMES)
    (tmp_path / "images" / "b" / "4.png").write_bytes(b"no image")
    data = {"dataset": f"folder:{tmp_path}/images"}
    with pytest.raises(UserError, match=r"b/4\.png"):
        compute(Scoring(PLACE, data=data), tmp_path / "out", 2)
    assert not list((tmp_path / "out").glob("*.partial"))
    compute(Scoring(PLACE, data=data | {"skip_broken_images": True}), tmp_path / "skipped", 2)
    rows = {row["key"]: row for row in rows_of(tmp_path / "skipped")}
    assert len(rows) == 11 and list(rows["b/4.png"]) == ["key", "unfit"] and rows["b/4.png"]["unfit"]
    assert all("log_prob" in row for key, row in rows.items() if key != "b/4.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "b" / "4.png")
    with pytest.raises(UserError, match="b/4.png is rgb but what the model was trained on is grey"):
        compute(Scoring(PLACE, data=data), tmp_path / "out", 2)
    with pytest.raises(UserError, match="color: expected source or grey, the model's, received rgb"):
        compute(Scoring(PLACE, data=data | {"color": "rgb"}), tmp_path / "out", 2)


def test_parts_that_are_there_are_skipped_and_damaged_ones_computed_again(stage, tmp_path, capsys):
    compute(stage(), tmp_path / "out", 3)
    expected = rows_of(tmp_path / "out")
    assert compute(stage(), tmp_path / "out", 3) == [False] * 3
    assert capsys.readouterr().out.count("is there already") == 3
    paths = [Part(read(tmp_path / "out"), Shard(index, 3), tmp_path / "out").format.files()[0] for index in range(3)]
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:-5])  # cut off
    changed = bytearray(paths[1].read_bytes())
    changed[40] ^= 1  # a bit, at the same length
    paths[1].write_bytes(changed)
    (tmp_path / "out" / "part-00002-of-00003.json").unlink()  # killed between the part and its seal
    with pytest.raises(UserError, match=r"2 of them cannot be used: 0/3 \(it is damaged\), 2/3 \(it is not there\); run these"):
        read_parts(tmp_path / "out")
    assert compute(stage(), tmp_path / "out", 3, [0, 2]) == [True, True]
    with pytest.raises(UserError, match=r"1 of them cannot be used: 1/3 \(it is damaged\)"):
        list(read_parts(tmp_path / "out"))
    assert compute(stage(), tmp_path / "out", 3) == [False, True, False]
    assert rows_of(tmp_path / "out") == expected and paths[0].read_bytes() == content


@pytest.mark.parametrize("stage", STAGES, indirect=True)
def test_one_that_is_killed_in_the_middle_is_run_again(stage, tmp_path, model):
    compute(stage(), tmp_path / "one", 1)
    compute(stage(), tmp_path / "out", 2, [0])
    process = os.fork()
    if not process:  # NumPy and files alone, which a forked process may use
        batches = []

        def ask(endpoint, **arrays):
            batches.append(arrays)
            if len(batches) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return Model().ask(endpoint, **arrays)

        model.ask = ask
        try:
            compute(stage(), tmp_path / "out", 2, [1])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    # Files of one image each are not replaced together.
    assert len(list((tmp_path / "out").rglob("*.partial"))) == (not list((tmp_path / "out").rglob("*.png")))
    with pytest.raises(UserError, match=r"1 of them cannot be used: 1/2 \(it is not there\)"):
        read_parts(tmp_path / "out")
    assert compute(stage(), tmp_path / "out", 2, [0, 1]) == [False, True]
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "one")
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(stage, tmp_path):
    work = Work(stage(), 1, tmp_path / "out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(UserError, match=f"output {tmp_path}/out: cannot be written: File too large"):
            work.compute(0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["job.json"]
    assert work.compute(0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda stage, model: stage(seed=1), "with seed=0, and this one has seed=1"),
        (lambda stage, model: setattr(model, "digest", "1" * 32) or stage(), "with model=000.*, and this one has model=111"),
        (lambda stage, model: stage(), "with number of parts=4, and this one has number of parts=5"),
    ],
    ids=["seed", "model", "parts"],
)
def test_a_folder_is_of_one_job(stage, tmp_path, model, change, expected):
    compute(stage(), tmp_path / "out", 4, [2])
    before = (tmp_path / "out" / "job.json").read_bytes()
    with pytest.raises(UserError, match=expected):
        compute(change(stage, model), tmp_path / "out", 5 if "number of parts" in expected else 4)
    assert (tmp_path / "out" / "job.json").read_bytes() == before and len(list((tmp_path / "out").iterdir())) == 3


def test_images_that_come_or_go_are_another_job(tmp_path):
    write_images(tmp_path / "images", NAMES)
    data = {"dataset": f"folder:{tmp_path}/images"}
    compute(Scoring(PLACE, data=data), tmp_path / "out", 2, [0])
    (tmp_path / "images" / "top.png").rename(tmp_path / "images" / "renamed.png")
    with pytest.raises(UserError, match="its parts are of another job, with images=.*or another folder$"):
        compute(Scoring(PLACE, data=data), tmp_path / "out", 2, [1])
    for part in (tmp_path / "out").glob("part-*"):
        part.unlink()
    with pytest.raises(UserError, match="no part is there yet: remove job.json to begin anew"):
        compute(Scoring(PLACE, data=data), tmp_path / "out", 2, [1])


def test_other_images_of_the_same_names_are_another_job(tmp_path):
    for folder in ("images", "others"):
        write_images(tmp_path / folder, NAMES)
    images, others = ({"dataset": f"folder:{tmp_path}/{name}"} for name in ("images", "others"))
    compute(Scoring(PLACE, data=images), tmp_path / "out", 2, [0])
    for name in NAMES[:5]:  # repaired since
        Image.new("L", (4, 4)).save(tmp_path / "others" / name.decode())
    assert compute(Scoring(PLACE, data=others), tmp_path / "out", 2, [0, 1]) == [False, True]
    Image.new("L", (4, 4)).save(tmp_path / "others" / NAMES[5].decode())
    with pytest.raises(UserError, match="its parts are of other images: of 11 that were compared 6 have another content, such as "
                       "'b/0.png'; expected"):
        compute(Scoring(PLACE, data=others), tmp_path / "out", 2, [0])


def test_a_part_of_another_job_is_refused(stage, tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        compute(stage(seed=seed), tmp_path / name, 2)
    for path in (tmp_path / "other").glob("part-00001-*"):
        shutil.copy(path, tmp_path / "one")
    for act in (lambda: read_parts(tmp_path / "one"), lambda: compute(stage(), tmp_path / "one", 2)):
        with pytest.raises(UserError, match="part-00001-of-00002.json: belongs to another job than .*one/job.json"):
            act()


def test_the_first_of_several_writes_the_job(stage, tmp_path, monkeypatch):
    """Two processes that both find no job.json: the second does not replace that of the first."""
    first, second = stage(), stage(seed=1)
    before = files.replacing

    def late(path):
        monkeypatch.setattr(files, "replacing", before)
        first.job(2).begin(tmp_path / "out")
        return before(path)

    monkeypatch.setattr(files, "replacing", late)
    with pytest.raises(UserError, match="with seed=0, and this one has seed=1"):
        second.job(2).begin(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "job.json").read_text())["facts"]["seed"] == 0


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """64 batches of a MiB are written, checked and read in a few MiB."""
    job = Job("sample", 64 * 1024, 1, {"format": "npz", "seed": 0}, {})
    part = Part(job, Shard(0, 1), tmp_path)
    job.begin(tmp_path)
    tracemalloc.start()
    try:
        part.write(np.full((1024, 32, 32, 1), number, np.uint8) for number in range(64))
        sums = [int(images.sum(dtype=np.int64)) for images in read_parts(tmp_path)]
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20  # a piece of a checksum has 4
    finally:
        tracemalloc.stop()
    assert sum(sums) == 2**20 * sum(range(64))


def test_more_images_than_numbers_of_rows(tmp_path):
    with pytest.raises(UserError, match="row numbers must fit int32"):
        Work(Sampling(PLACE, num_samples=2**31 + 1), 4, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_shards_than_images(tmp_path):
    with pytest.raises(UserError, match="expected at most as many shards as there are images, 3, received 4"):
        compute(Sampling(PLACE, num_samples=3), tmp_path, 4)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 2, "stage": "sample"}', '{"format": 1, "stage": "sample"}'])
def test_a_folder_without_a_job(tmp_path, content):
    if content is not None:
        (tmp_path / "job.json").write_text(content)
    expected = "found no job.json" if content is None else "job.json: expected the file that"
    with pytest.raises(UserError, match="begun by another version of tfcq" if content and "1" in content else expected):
        read_parts(tmp_path)


def test_a_job_is_read_without_tensorflow(tmp_path):
    compute(Sampling(PLACE, num_samples=3), tmp_path, 1)
    program = "import sys; from tfcq.bulk import read_parts; print(sum(map(len, read_parts(sys.argv[1])))); "
    program += "print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.split() == ["3", "False"]
