"""Which evaluations of a training write grids (--keep_grids)."""

import numpy as np
import tiny_models as tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfcq
from tfcq import workdir as workdirs
from tfcq.training.callbacks.evaluation import grids_are_kept
from tfcq.training.run import train


def test_a_number_of_evaluations_keeps_grids(tmp_path):
    config = tiny.config(8, training={"train_steps": 5, "evaluate_every": 1, "keep_grids": 3}, latent_size=4, **tiny.ROWS["vae"])
    train(config, tmp_path)
    shown = {int(path.stem[-8:]) for path in (tmp_path / "samples").glob("samples-*")}
    assert shown == {0, 3, 5}
    accumulator = EventAccumulator(str(tmp_path / "tensorboard" / "validation")).Reload()
    assert {event.step for event in accumulator.Tensors("grids/samples")} == shown
    assert [event.step for event in accumulator.Tensors("grids/real_images")] == [0]
    assert [row["step"] for row in workdirs.read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_grids_are_kept_evenly_and_never_more_than_asked_for():
    for steps, every, kept in ((100, 10, 4), (95, 10, 4), (1000, 1, 50), (7, 3, 2), (20, 5, 50), (10, 100, 2)):
        training = tfcq.TrainingConfig(train_steps=steps, evaluate_every=every, keep_grids=kept)
        due = [step for step in range(steps + 1) if step % every == 0 or step == steps]
        found = [step for step in due if grids_are_kept(training, step)]
        assert found[0] == 0 and found[-1] == steps and len(found) <= kept
        assert len(due) > kept or found == due
        gaps = np.diff(found[:-1])
        assert len(set(gaps)) <= 1  # but for the last, which is where training ends
