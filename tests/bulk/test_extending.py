"""A folder of samples that goes on to more: what is there stays, what is new is what one command would have drawn."""

import json

import numpy as np
import pytest
from test_bulk import PLACE, Model, at_an_address, fixture_model  # noqa: F401

from tfcq.bulk import job as jobs
from tfcq.bulk import read_parts, running
from tfcq.bulk.reading import join
from tfcq.bulk.running import Work, is_complete
from tfcq.bulk.stages import Sampling
from tfcq.errors import UserError
from tfcq.seeds import row_seeds

FORMATS = ["png", "npz", "tfrecord"]


def expected(count):
    return Model().ask("sample", seed=row_seeds(count, 5))["images"]


def sampling(count, files="png", batch_size=4, **options):
    return Sampling(PLACE, **{"seed": 5, "batch_size": batch_size, "num_samples": count, "files": files} | options)


def drawn(folder, *options, **more):
    """Computes as a command of one process does; returns the bytes of each file."""
    Work(sampling(*options, **more), None, folder).compute_all()
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(running, "ROWS_OF_A_PART", 3)


@pytest.mark.parametrize("files", FORMATS)
@pytest.mark.parametrize("at", ["here", "there"])
def test_more_images_are_added_and_those_there_stay(tmp_path, files, at, capsys, model):
    folder = tmp_path / "drawn" if at == "here" else at_an_address()
    before = drawn(folder, 7, files)
    asked = len(model.asked)
    capsys.readouterr()
    after = drawn(folder, 12, files)
    assert f"{folder}: 7 of 12 images are there already" in capsys.readouterr().out
    assert {name: after[name] for name in before if name != jobs.NAME} == {
        name: content for name, content in before.items() if name != jobs.NAME
    }
    seeds = {tuple(seed) for arrays in model.asked[asked:] for seed in arrays["seed"] if seed.any()}
    assert seeds == {(5, number) for number in range(7, 12)}
    np.testing.assert_array_equal(np.concatenate(list(read_parts(folder))), expected(12))
    assert is_complete(folder) and drawn(folder, 12, files) == after
    assert drawn(folder, 13, files)  # and once more
    np.testing.assert_array_equal(np.concatenate(list(read_parts(folder))), expected(13))
    job = jobs.read(folder)
    assert [(span["count"], span["parts"]) for span in job.earlier] == [(7, 3), (12, 5)] and (job.count, job.parts) == (13, 6)


def test_what_was_interrupted_goes_on_to_more(tmp_path, model):
    ask = model.ask

    def interrupted(endpoint, **arrays):
        if len(model.asked) == 2:
            raise KeyboardInterrupt
        return ask(endpoint, **arrays)

    model.ask = interrupted
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path, 11)
    model.ask = ask
    drawn(tmp_path, 14)
    np.testing.assert_array_equal(np.concatenate(list(read_parts(tmp_path))), expected(14))


def test_the_batches_of_a_smaller_job_are_those_that_it_had(tmp_path, model):
    """Its parts are computed as they would have been, when one is damaged later."""
    drawn(tmp_path, 2, batch_size=64)
    drawn(tmp_path, 9, batch_size=64)
    (tmp_path / "00000" / "seed-5-00000001.png").unlink()
    model.asked.clear()
    drawn(tmp_path, 9, batch_size=64)
    assert [len(arrays["seed"]) for arrays in model.asked] == [2]
    with pytest.raises(UserError, match="of another job, with batch_size=9, and this one has batch_size=4"):
        drawn(tmp_path, 9, batch_size=4)


def test_parts_are_joined_in_their_order(tmp_path):
    drawn(tmp_path / "parts", 4, "npz"), drawn(tmp_path / "parts", 11, "npz")
    join(tmp_path / "parts", tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], expected(11))


def test_fewer_images_or_others_are_refused_and_change_nothing(tmp_path):
    before = drawn(tmp_path, 7)
    with pytest.raises(UserError, match="has 7 images, received --num_samples=3; expected at least as many, or another"):
        drawn(tmp_path, 3)
    with pytest.raises(UserError, match="its parts are of another job, with temperature=1.0, and this one has temperature=0.5"):
        drawn(tmp_path, 12, temperature=0.5)
    with pytest.raises(UserError, match="with number of images=7, and this one has number of images=12"):
        Work(sampling(12), 4, tmp_path)  # a shard of four: the other processes would not know
    assert before == {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("meanwhile", [9, 14])
def test_another_process_that_goes_on_at_the_same_time_is_not_overwritten(tmp_path, meanwhile):
    drawn(tmp_path, 7, "npz")
    calls = []

    def parts_of(rows):  # asked between what is read and what is written
        calls.append(rows)
        if len(calls) == 1:
            Work(sampling(meanwhile, "npz"), None, tmp_path)
        return running.parts_of(rows)

    job = sampling(12, "npz").job(running.parts_of(12))
    if meanwhile > 12:
        with pytest.raises(UserError, match="has 14 images, received --num_samples=12"):
            job.begin_or_extend(tmp_path, parts_of)
        assert jobs.read(tmp_path).count == 14
    else:
        job = job.begin_or_extend(tmp_path, parts_of)
        assert job.digest == jobs.read(tmp_path).digest
        assert ([span["count"] for span in job.earlier], job.count, calls) == ([7, 9], 12, [5, 3])


def test_one_process_completes_what_shards_began(tmp_path):
    Work(sampling(11), 4, tmp_path).compute(1)
    drawn(tmp_path, 11)
    assert jobs.read(tmp_path).parts == 4
    np.testing.assert_array_equal(np.concatenate(list(read_parts(tmp_path))), expected(11))


def test_the_file_of_a_job_that_never_went_on_is_as_before(tmp_path):
    drawn(tmp_path, 7)
    content = json.loads((tmp_path / jobs.NAME).read_text())
    assert set(content) == {"format", "stage", "count", "parts", "facts", "places", "content"}
