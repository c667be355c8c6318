"""Models that lie in folders of any name are served by the local server; others are refused in one line."""

import numpy as np
import pytest
import toy_model
from path_names import NAMES, NASTY
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfcq.serving.server.errors import RequestError
from tfcq.serving.server.manager import ModelManager
from tfcq.serving.server.versions import checked_models, single_model_config

SPEC = model_pb2.ModelSpec(name="toy")


def predict(manager):
    """(version that answers, largest pixel of its sample)."""
    version, servable = manager.find(SPEC)
    inputs = {"seed": np.zeros((1, 2), np.int32), "temperature": np.ones(1, np.float32)}
    return version, servable.predict("sample", inputs)["images"].max()


@pytest.mark.parametrize("name", ["[a]", NASTY])
def test_versions_come_and_are_warmed_up_under_any_name(name, tmp_path):
    base = tmp_path / name / "toy"
    record = toy_model.warmup_record("sample", seed=[[0, 0]], temperature=[1.0])
    toy_model.export(base / "1", brightest=0, warmup_records=[record])
    manager = ModelManager()
    manager.configure(single_model_config("toy", str(base)))
    assert predict(manager) == (1, 0)
    toy_model.export(base / "2", warmup_records=[record])
    manager.poll()
    version, brightest = predict(manager)
    assert version == 2 and brightest > 100
    assert manager.available() == {"toy": [2]}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:24]))
def test_any_name_is_a_base_path(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    for given in (str(tmp_path / name), f"{tmp_path}/{name}/"):
        config = single_model_config("toy", given)
        parsed = model_server_config_pb2.ModelServerConfig.FromString(config.SerializeToString())
        assert checked_models(parsed)["toy"].base_path == str(tmp_path / name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked_models(single_model_config("toy", f"~/{name}"))["toy"].base_path == str(tmp_path / name)


def test_a_base_path_of_several_lines_is_refused(tmp_path):
    (tmp_path / "a\nb").mkdir()
    with pytest.raises(RequestError, match="needs a base_path of one line"):
        checked_models(single_model_config("toy", str(tmp_path / "a\nb")))


def test_a_folder_without_versions_is_waited_for_and_one_of_models_is_refused(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("tfcq.serving.server.manager.logging.warning", lambda text, *values: said.append(text % values))
    (tmp_path / "models" / "toy").mkdir(parents=True)
    ModelManager().configure(single_model_config("toy", str(tmp_path / "models" / "toy")))
    line, = said
    assert "waiting for a directory with an integer for its name" in line and "loaded" not in line
    (tmp_path / "models" / "toy" / "1").mkdir()
    (tmp_path / "models" / "toy" / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(RequestError, match=f"models holds models, not versions; .* such as {tmp_path}/models/toy$"):
        checked_models(single_model_config("toy", str(tmp_path / "models")))
