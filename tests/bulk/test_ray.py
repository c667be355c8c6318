"""Ray with an actor that is killed: the same rows as one process computes, to the bit.

Ray is an extra that tfcq's own environment does not install. Where it is: `python -m pytest tests/bulk/test_ray.py`.
"""

import dataclasses
import os
import pathlib
import signal
import sys

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="extra `ray`: pip install 'tfcq[ray]'")
pytest.importorskip("ray.data", reason="extra `ray`: pip install 'tfcq[ray]'")

from tfcq.bulk import image_stages, read_parts, stages  # noqa: E402 - after the skips
from tfcq.bulk.place import ModelPlace  # noqa: E402
from tfcq.bulk.ray_adapter import run_on_ray  # noqa: E402
from tfcq.bulk.running import Work  # noqa: E402
from tfcq.errors import UserError  # noqa: E402

PARTS = 4


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import this module
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def killed_once(kind):
    """A subclass of a stage whose process is killed in the middle of the second shard, the first time."""

    @dataclasses.dataclass(frozen=True)
    class Killed(kind):
        marker: str = ""

        def results(self, rows, progress=None):
            for number, batch in enumerate(super().results(rows, progress)):
                if number == 1 and rows.start == self.count // PARTS and not os.path.exists(self.marker):
                    pathlib.Path(self.marker).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    return Killed


@pytest.mark.slow
def test_an_actor_that_is_killed(place, tmp_path):
    model = ModelPlace(export=place / "export")
    options = {
        stages.Sampling: {"num_samples": 43},
        image_stages.Scoring: {"data": {"dataset": f"folder:{place}/images"}},
    }
    for kind, given in options.items():
        name, given = kind.__name__, {"model": model, "seed": 5, "batch_size": 4} | given
        Work(kind(**given), 1, tmp_path / f"{name}_one").compute(0)
        run_on_ray(killed_once(kind)(**given, marker=f"{tmp_path}/{name}_killed"), PARTS, tmp_path / name)
        assert (tmp_path / f"{name}_killed").exists() and not list(tmp_path.glob(f"{name}/*.partial"))
        rows, expected = (list(read_parts(tmp_path / folder)) for folder in (name, f"{name}_one"))
        if kind is stages.Sampling:
            assert np.array_equal(np.concatenate(rows), np.concatenate(expected))
        else:
            assert rows == expected and len(rows) == 43
    with pytest.raises(UserError, match="its parts are of another job, with seed=5, and this one has seed=6"):
        run_on_ray(stages.Sampling(model, seed=6, batch_size=4, num_samples=43), PARTS, tmp_path / "Sampling")
