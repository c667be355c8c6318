"""The names of classes: a run, its export and a server of it mean the same by `--class_name`."""

import asyncio

import conftest as servers
import numpy as np
import pytest
import tiny_models as tiny
from commands import run_here

import tfcq
from tfcq.bulk import model as models
from tfcq.bulk.place import ModelPlace
from tfcq.endpoints import SIGNATURES
from tfcq.errors import UserError
from tfcq.exporting import signatures as exported
from tfcq.exporting.export import export
from tfcq.serving.client.client import Client

NAMES = ("1", "3", "bögen")  # so that the class named 1 is not the one numbered 1


@pytest.fixture(scope="module", name="place")
def fixture_place(tmp_path_factory):
    """(a folder with `run`, `export/glf/1`, and `earlier/glf/2` of a version that kept no names; their model)."""
    folder = tmp_path_factory.mktemp("classes")
    np.savez(folder / "images.npz", train=tiny.images((4, 4, 1), 40), train_labels=np.array(NAMES)[np.arange(40) % 3])
    config = tiny.config(model="glf", class_conditional=True, data={"dataset": f"npz:{folder}/images.npz"})
    model = tiny.make_workdir(folder / "run", config)
    few = ("sample", "sample_class", "class_probabilities", "name_classes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported, "SIGNATURES", {name: SIGNATURES[name] for name in few})
        export(folder / "run", folder / "export", 1, checkpoint="last")
    module = exported.ServingModule(model, 1)
    module.save(str(folder / "earlier" / "glf" / "2"), {name: module.signature(name) for name in few[:-1]})
    return folder, model


@pytest.fixture(scope="module", name="server")
def fixture_server(place):
    process = servers.ServerProcess(place[0], "--model_name=glf", "--model_base_path=export/glf")
    process.wait_until_ready()
    yield process
    assert process.stop() == 0


def test_a_model_says_the_names_of_its_classes(place):
    model = place[1]
    assert model.class_names == NAMES
    answer = model.name_classes([2, 0, 2])
    assert answer["names"].tolist() == ["bögen", "1", "bögen"] and answer["num_classes"].tolist() == [3] * 3
    assert model.name_classes(1) == {"names": "3", "num_classes": 3}
    with pytest.raises(UserError, match=r"^name_classes\(classes\): expected numbers of classes, 0 to 2, received 3"):
        model.name_classes([0, 3])


def test_places_know_names_and_how_many_classes_there_are(place, server):
    folder = place[0]
    known = [
        ModelPlace(workdir=folder / "run", checkpoint="last"),
        ModelPlace(export=folder / "export" / "glf"),
        ModelPlace(server=f"{server.grpc_address}/glf"),
        ModelPlace(server=f"{server.rest_url}/glf"),
    ]
    for one in known:
        asked = models.load(one)
        assert (asked.class_names, asked.num_classes) == (NAMES, 3), one
    earlier = models.load(ModelPlace(export=folder / "earlier" / "glf"))
    assert (earlier.class_names, earlier.num_classes) == ((), 3)


def test_a_client_says_the_names_of_classes(server):
    for client in (Client.grpc(server.grpc_address, "glf"), Client.rest(server.rest_url, "glf")):
        assert client.class_names() == NAMES
        names, count = client.name_classes([2, 1])
        assert names.tolist() == ["bögen", "3"] and count.tolist() == [3, 3]
        with pytest.raises(UserError, match="at most 2, received"):
            client.name_classes([3])

    async def ask():
        async with tfcq.AsyncClient.grpc(server.grpc_address, "glf") as client:
            return await client.class_names()

    assert asyncio.run(ask()) == NAMES


def test_a_class_name_means_the_same_with_a_run_an_export_and_a_server(place, server, tmp_path):
    folder, model = place
    known = [f"--workdir={folder}/run", f"--export={folder}/export/glf", f"--server={server.rest_url}/glf"]
    given = [(known[0], "bögen", 2), (known[1], "2", 2), *((flag, "1", 0) for flag in known)]  # 2 is no name, so a number
    given += [(f"--export={folder}/earlier/glf", "1", 1)]
    for number, (flag, name, expected) in enumerate(given):
        path = tmp_path / f"{number}.npz"
        status, _, errors = run_here("sample", flag, f"--class_name={name}", "--num_samples=2", f"--output={path}")
        assert status == 0, errors
        wanted = model.sample_class(expected, tfcq.row_seeds(2)).astype(int)
        assert np.abs(np.load(path)["images"] - wanted).max() <= 1, (flag, name)
    status, _, errors = run_here("sample", known[2], "--class_name=boot", "--num_samples=2", f"--output={tmp_path}/no.npz")
    assert status == 2 and "class_name: expected one of 1, 3, bögen, or a number from 0 to 2, received 'boot'" in errors
    status, _, errors = run_here("sample", known[2], f"--output={tmp_path}/a.png")
    assert status == 2 and "server: a picture is drawn of a run, --workdir=DIR; expected --output=DIR" in errors
