"""The whole way once: trained, exported, served; the endpoints answer what the trained model answers."""

import concurrent.futures
import functools
import json
import os
import pathlib
import subprocess
import sys

import conftest as servers
import numpy as np
import pytest
import tiny_models as tiny
from commands import run_here
from PIL import Image

import tfcq
from tfcq.bulk import read_parts
from tfcq.data.transforms import Transform
from tfcq.exporting.export import export
from tfcq.serving.client.client import Client
from tfcq.serving.server.batching import Batcher, Scheduler
from tfcq.serving.server.batching_parameters import BatchingParameters
from tfcq.serving.server.servable import Servable

K = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a tiny trained run, whose flow has one scale: its graphs are traced in the run, the export and the server."""
    folder = tmp_path_factory.mktemp("served") / "run"
    training = {"train_steps": 4, "checkpoint_every": 2}
    config = tiny.config(8, data={"dataset": "digits", "color": "grey"}, training=training, flow_scales=1, flow_couplings=1)
    tfcq.Run(folder, config).train()
    return folder


@pytest.fixture(scope="module")
def server(run):
    """A local server of that run's export."""
    export(run, run.parent / "exports", num_importance_samples=K)
    process = servers.ServerProcess(run.parent, "--model_name=cqf", "--model_base_path=exports/cqf")
    process.wait_until_ready()
    yield process
    assert process.stop() == 0


@pytest.mark.slow
def test_the_contract_holds_for_an_exported_model(server):
    addresses = {"TFCQ_SERVER_GRPC": server.grpc_address, "TFCQ_SERVER_REST": server.rest_url, "TFCQ_SERVER_MODEL": "cqf"}
    contract = sorted(map(str, pathlib.Path(__file__).parent.glob("test_contract*.py")))
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *contract],
        env=os.environ | addresses,
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout[-3000:]
    assert " passed" in outcome.stdout and "skipped" not in outcome.stdout


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_endpoints_answer_what_the_trained_model_answers(run, server, transport):
    address = server.grpc_address if transport == "grpc" else server.rest_url
    client, model = getattr(Client, transport)(address, model="cqf"), tfcq.Run(run).model()
    seeds = tfcq.row_seeds(5, seed=3)
    images = client.sample(seeds=seeds)
    difference = np.abs(images.astype(int) - model.sample(seeds))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # a value at a bin's edge may fall either way
    log_prob = client.log_prob(images, seeds=seeds)
    np.testing.assert_allclose(log_prob, model.log_prob(images, seeds, num_importance_samples=K), rtol=1e-5)
    np.testing.assert_allclose(client.bits_per_dim(images, seeds=seeds), -log_prob / (64 * np.log(2)), rtol=1e-5)
    np.testing.assert_allclose(client.encode(images, seeds=seeds), model.encode(images, seeds), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_pictures_of_any_size_are_prepared_by_the_model_as_training_prepares_them(run, server, transport):
    address = server.grpc_address if transport == "grpc" else server.rest_url
    client = getattr(Client, transport)(address, model="cqf")
    photos = np.random.default_rng(5).integers(0, 256, (3, 21, 16, 3), np.uint8)
    prepared = Transform.of(tfcq.Run(run).config.data, 1, "")(photos)
    seeds = tfcq.row_seeds(3, seed=3)
    for given in (photos, [Image.fromarray(photo) for photo in photos]):
        np.testing.assert_allclose(client.encode(given, seeds=seeds), client.encode(prepared, seeds=seeds), rtol=1e-4, atol=1e-5)
    difference = np.abs(client.reconstruct(photos, seeds=seeds).astype(int) - client.reconstruct(prepared, seeds=seeds))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_scores_by_a_server_are_those_of_the_export(run, server, tmp_path):
    np.savez(tmp_path / "images.npz", images=tiny.images((8, 8, 1), 5))
    places = {
        "export": f"--export={run.parent}/exports/cqf",
        "grpc": f"--server={server.grpc_address}/cqf",
        "rest": f"--server={server.rest_url}/cqf",
    }
    for name, place in places.items():
        status, _, errors = run_here("score", place, f"--images=npz:{tmp_path}/images.npz", f"--output={tmp_path}/{name}")
        assert (status, errors) == (0, "")
    expected, *others = (list(read_parts(tmp_path / name)) for name in places)
    for rows in others:
        assert [row.pop("key") for row in rows] == [f"image {number}" for number in range(5)]
        for row, one in zip(rows, expected, strict=True):
            assert row == pytest.approx({name: one[name] for name in row}, rel=1e-4) and len(row) == len(one) - 1 >= 4
    assert json.loads((tmp_path / "rest" / "job.json").read_text())["places"]["server"] == f"{server.rest_url}/cqf"


@pytest.mark.parametrize(
    "address, message",
    [
        ("localhost:8500", "expected host:port/MODEL"),
        ("http:///cqf", "expected host:port/MODEL"),
        ("127.0.0.1:1/cqf", "UNAVAILABLE"),
    ],
)
def test_no_server_there(address, message, tmp_path):
    np.savez(tmp_path / "images.npz", images=tiny.images((8, 8, 1), 5))
    flags = [f"--server={address}", f"--images=npz:{tmp_path}/images.npz", f"--output={tmp_path}/out"]
    status, _, errors = run_here("score", *flags)
    assert status == 2 and message in errors and errors.count("\n") == 1, errors


def test_joined_rows_have_the_bits_that_they_have_alone(run, server):
    """Where all runs have one size. (Another number of rows may round otherwise, with batching and without.)

    That a row's place changes nothing is a property of the kernels on the CPUs where it was looked at: serving/README.md.
    """
    model, count = Servable(str(run.parent / "exports" / "cqf" / "1")), 16
    check_bits(model, {"images": tiny.images((8, 8, 1), count)}, count, {"max_batch_size": 8, "allowed_batch_sizes": (8,)})


def check_bits(model, given, count, parameters):
    given |= {"seed": tfcq.row_seeds(count, seed=3), "temperature": np.linspace(0.5, 1, count, dtype=np.float32)}
    scheduler = Scheduler(2)
    together, alone = (Batcher(BatchingParameters(**parameters, batch_timeout_micros=time), scheduler) for time in (10_000, 0))
    for signature in ("likelihood", "encode", "sample"):
        rows = [{name: given[name][n : n + 1] for name in model.input_specs(signature)} for n in range(count)]
        expected = [alone.predict(model.predict, signature, row) for row in rows]
        with concurrent.futures.ThreadPoolExecutor(count) as threads:
            answers = list(threads.map(functools.partial(together.predict, model.predict, signature), rows))
        large = together.predict(model.predict, signature, {name: given[name][:8] for name in rows[0]})
        for name in expected[0]:
            bits = [one[name].tobytes() for one in expected]
            assert [one[name].tobytes() for one in answers] == bits
            assert [row.tobytes() for row in large[name]] == bits[:8]
    scheduler.stop()


@pytest.fixture(scope="module")
def latent_run(tmp_path_factory):
    """Folder of a tiny run of a model of latents, with its export; the other run shows that trained weights are served."""
    folder = tmp_path_factory.mktemp("served_latents") / "run"
    tiny.make_workdir(folder, tiny.config(8, data={"dataset": "digits"}, model="introvae"))
    export(folder, folder.parent / "exports")
    return folder


@pytest.mark.long
def test_endpoints_of_a_model_of_latents_answer_the_same_by_both_transports(latent_run, request):
    server = servers.ServerProcess(latent_run.parent, "--model_name=introvae", "--model_base_path=exports/introvae")
    request.addfinalizer(server.process.kill)  # where the test fails
    server.wait_until_ready()
    model, seeds = tfcq.Run(latent_run).model(), tfcq.row_seeds(4, seed=3)
    images, other_images = tiny.images(model.image_shape, 4), tiny.images(model.image_shape, 4, seed=1)
    share, spherical = np.float32([0.0, 0.3, 0.6, 1.0]), np.array([True, False, True, False])
    expected = model.interpolate(images, other_images, share, spherical, seeds)
    likelihood, other_seeds = model.latent_likelihood(images, seeds), tfcq.row_seeds(4, seed=5)
    of_noise = model.interpolate_noise(seeds, other_seeds, share, spherical)
    for client in (
        Client.grpc(server.grpc_address, model="introvae"),
        Client.rest(server.rest_url, model="introvae"),
    ):
        between = client.interpolate(images, other_images, share, spherical, seeds=seeds)
        assert np.abs(between.astype(int) - expected).max() <= 1
        between = client.interpolate_noise(seeds, other_seeds, share, spherical)
        assert np.abs(between.astype(int) - of_noise).max() <= 1
        ends, samples = between[[0, -1]], client.sample(seeds=np.stack([seeds[0], *other_seeds[1:]]))[[0, -1]]
        np.testing.assert_array_equal(ends, samples)
        log_prob, error = client.latent_likelihood(images, seeds=seeds)
        np.testing.assert_allclose(log_prob, likelihood["latent_log_prob"], rtol=1e-4)
        np.testing.assert_allclose(error, likelihood["reconstruction_error"], rtol=1e-4)
        np.testing.assert_allclose(client.energy(images, seeds=seeds), model.energy(images, seeds), rtol=1e-4)
        assert "likelihood" not in client.metadata()["signatures"]  # its density is of latents
    assert server.stop() == 0
