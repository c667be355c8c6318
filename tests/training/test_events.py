"""TensorBoard's files of runs that were killed and resumed: EventAccumulator sees one course, without doubles or orphans."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfcq.training import events


def write(folder, steps, number):
    """One process's file: a scalar and a picture at each step, with a value that tells who wrote it."""
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=f".{number}")
    for step in steps:
        with writer.as_default(step):
            tf.summary.scalar("loss", 1000.0 * number + step)
            tf.summary.image("samples", np.full((1, 4, 4, 1), number, np.uint8))
    writer.close()
    paths = [path for path in folder.glob("*tfevents*") if path.name.endswith(f".{number}")]
    # Two of one second would be in no order: their names begin with it.
    return paths[0].rename(folder / f"events.out.tfevents.{1700000000 + number}.host.{number}")


def read(folder):
    """[(step, value)] of the scalar, and the steps of the picture, as TensorBoard has them."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    scalars = [(one.step, float(tf.make_ndarray(one.tensor_proto))) for one in accumulator.Tensors("loss")] if tags else []
    return scalars, [one.step for one in accumulator.Tensors("samples")] if tags else []


@pytest.mark.parametrize(
    ("written", "step", "expected"),
    [
        ([range(50, 500, 50)], 250, [(step, 0) for step in range(50, 300, 50)]),
        ([range(50, 500, 50)], 450, [(step, 0) for step in range(50, 500, 50)]),
        ([range(50, 500, 50)], 40, []),
        ([range(50, 500, 50)], -1, []),
        ([[0, 100, 200], [300, 400]], 300, [(0, 0), (100, 0), (200, 0), (300, 1)]),
        ([[0, 100, 200], [300, 400]], 250, [(0, 0), (100, 0), (200, 0)]),
        # As versions before left it: killed at 450, resumed from 250, killed at 400, resumed from 300.
        (
            [range(50, 500, 50), range(300, 450, 50), [350]],
            350,
            [*((step, 0) for step in range(50, 300, 50)), (300, 1), (350, 2)],
        ),
        ([], 100, []),
    ],
)
def test_what_lies_beyond_the_step_is_gone(tmp_path, written, step, expected):
    for number, steps in enumerate(written):
        write(tmp_path, steps, number)
    events.drop_after(tmp_path, step)
    scalars, pictures = read(tmp_path)
    assert scalars == [(at, 1000.0 * number + at) for at, number in expected]
    assert pictures == [at for at, _ in expected]
    write(tmp_path, [step + 50, step + 100], 7)  # and the run goes on
    scalars, pictures = read(tmp_path)
    assert [at for at, _ in scalars] == [*(at for at, _ in expected), step + 50, step + 100] == pictures


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_an_event_that_was_cut_off_goes(tmp_path, cut):
    path = write(tmp_path, [50, 100, 150], 0)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    events.drop_after(tmp_path, 1000)
    assert path.read_bytes() == content[: path.stat().st_size] and path.stat().st_size < len(content) - cut
    scalars, pictures = read(tmp_path)
    assert [at for at, _ in scalars] == [50, 100, 150] and pictures == [50, 100]  # the picture is the last


def test_a_file_of_nothing_that_stays_goes_and_others_are_not_touched(tmp_path):
    write(tmp_path, [300], 0)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "events.out.tfevents.1.host.9").write_bytes(b"")
    events.drop_after(tmp_path, 250)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    events.drop_after(tmp_path / "nowhere", 250)
