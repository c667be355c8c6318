"""What every server of every exported model must keep, whoever wrote the server.

The client sees no difference between transports, servers or models, so these tests run on the toy model and the local
server by default, and on any other server by the environment variables that `conftest.py` names. A signature that a
model does not have is skipped, with its name.
"""

import asyncio

import numpy as np
import pytest

from tfcq.serving.client.answers import Expected
from tfcq.serving.client.async_client import AsyncClient
from tfcq.serving.client.client import Client, ServerError, row_seeds

NUM_IMAGES = 5
# TF Serving says FAILED_PRECONDITION where a gRPC request names an unknown signature, and INVALID_ARGUMENT by REST.
REFUSED = {"INVALID_ARGUMENT", "FAILED_PRECONDITION"}


def make_client(endpoints, transport, **options):
    address = getattr(endpoints, transport)
    if not address:
        pytest.skip(f"no address for {transport}")
    return getattr(Client, transport)(address, **({"model": endpoints.model} | options))


@pytest.fixture(params=["grpc", "rest"])
def transport(request):
    return request.param


@pytest.fixture
def client(endpoints, transport):
    return make_client(endpoints, transport)


@pytest.fixture(scope="module")
def images(endpoints):
    """Images that the model itself drew; all later requests are about them."""
    return make_client(endpoints, "grpc" if endpoints.grpc else "rest").sample(NUM_IMAGES, seed=3)


def needs(client, *signatures):
    present = client.metadata()["signatures"]
    for signature in signatures:
        if signature not in present:
            pytest.skip(f"the model has no signature {signature!r}")


def test_metadata_declares_the_tensors_of_the_contract(client, endpoints):
    metadata = client.metadata()
    assert metadata["name"] == endpoints.model and metadata["version"] >= 1
    signatures = metadata["signatures"]
    assert signatures["sample"]["inputs"] == {"seed": {"dtype": "int32", "shape": [None, 2]},
                                              "temperature": {"dtype": "float32", "shape": [None]}}
    assert signatures["sample"]["outputs"]["images"]["dtype"] == "uint8"
    assert set(signatures["serving_default"]["inputs"]) == {"seed", "temperature"}
    for name, signature in signatures.items():
        for tensor in [*signature["inputs"].values(), *signature["outputs"].values()]:
            assert tensor["shape"] is None or tensor["shape"][0] is None, f"{name} is not [N, ...]"


def test_status_has_the_served_version(client):
    served = client.metadata()["version"]
    assert client.status()[served] == {"state": "AVAILABLE", "error": ""}


def test_sample_gives_images(client, images):
    assert images.dtype == np.uint8 and images.ndim == 4 and len(images) == NUM_IMAGES
    np.testing.assert_array_equal(client.sample(NUM_IMAGES, seed=3), images)


def test_seeds_tell_images_apart(client, images):
    assert len(np.unique(images.reshape(NUM_IMAGES, -1), axis=0)) == NUM_IMAGES
    assert np.any(client.sample(NUM_IMAGES, seed=4) != images)


def test_default_signature_is_sample(client, images):
    inputs = {"seed": row_seeds(NUM_IMAGES, 3), "temperature": np.ones(NUM_IMAGES, np.float32)}
    np.testing.assert_array_equal(client.predict("", inputs)["images"], images)


def test_row_is_the_same_alone_and_in_a_batch(client, images):
    """To one grey level: another batch size may take another order of summation in a convolution."""
    alone = np.concatenate([client.sample(seeds=row_seeds(NUM_IMAGES, 3)[row:row + 1]) for row in range(NUM_IMAGES)])
    np.testing.assert_allclose(alone.astype(int), images.astype(int), atol=1)


def test_chunks_are_invisible(endpoints, transport, images):
    client = make_client(endpoints, transport, max_batch_size=2)
    np.testing.assert_allclose(client.sample(NUM_IMAGES, seed=3).astype(int), images.astype(int), atol=1)
    needs(client, "likelihood")
    whole = make_client(endpoints, transport).log_prob(images)
    np.testing.assert_allclose(client.log_prob(images), whole, rtol=1e-4)


def test_temperature_goes_by_row(client):
    temperatures = np.linspace(0.2, 1.0, NUM_IMAGES, dtype=np.float32)
    together = client.sample(NUM_IMAGES, temperature=temperatures, seed=3).astype(int)
    for row in range(NUM_IMAGES):
        alone = client.sample(seeds=row_seeds(NUM_IMAGES, 3)[row:row + 1], temperature=float(temperatures[row]))
        np.testing.assert_allclose(alone.astype(int), together[row:row + 1], atol=1)


def test_bits_per_dim_is_log_prob_in_other_units(client, images):
    needs(client, "likelihood")
    log_prob, bits_per_dim = client.log_prob(images), client.bits_per_dim(images)
    assert log_prob.dtype == bits_per_dim.dtype == np.float32 and log_prob.shape == (NUM_IMAGES,)
    np.testing.assert_allclose(bits_per_dim, -log_prob / (images[0].size * np.log(2.0)), rtol=1e-4)


def test_decode_of_encode_is_reconstruct(client, images):
    needs(client, "encode", "decode", "reconstruct")
    latents = client.encode(images, seed=7)
    assert latents.dtype == np.float32 and len(latents) == NUM_IMAGES
    rebuilt = client.reconstruct(images, seed=7)
    assert rebuilt.shape == images.shape and rebuilt.dtype == np.uint8
    np.testing.assert_allclose(client.decode(latents).astype(int), rebuilt.astype(int), atol=1)


@pytest.mark.parametrize("ask", [
    lambda client, images: client.sample(NUM_IMAGES, temperature=0.7),
    lambda client, images: client.predict("likelihood", {"images": images, "seed": row_seeds(len(images))}),
    lambda client, images: client.encode(images),
    lambda client, images: client.decode(client.encode(images)),
    lambda client, images: client.reconstruct(images),
], ids=["sample", "likelihood", "encode", "decode", "reconstruct"])
def test_transports_agree_to_the_bit(endpoints, images, ask, request):
    clients = [make_client(endpoints, name) for name in ("grpc", "rest")]
    name = request.node.callspec.id
    needs(clients[0], name, *(["encode"] if name == "decode" else []))
    by_grpc, by_rest = (ask(client, images) for client in clients)
    if not isinstance(by_grpc, dict):
        by_grpc, by_rest = {"": by_grpc}, {"": by_rest}
    assert set(by_grpc) == set(by_rest)
    for key, array in by_grpc.items():
        assert array.dtype == by_rest[key].dtype
        np.testing.assert_array_equal(array, by_rest[key])


def test_an_async_client_in_parallel_chunks_agrees(endpoints, transport, images):
    async def ask():
        options = {"model": endpoints.model, "max_batch_size": 2, "parallel": 3}
        async with getattr(AsyncClient, transport)(getattr(endpoints, transport), **options) as client:
            return await asyncio.gather(client.sample(NUM_IMAGES, seed=3), client.sample(NUM_IMAGES, seed=3))

    if not getattr(endpoints, transport):
        pytest.skip(f"no address for {transport}")
    for answer in asyncio.run(ask()):
        np.testing.assert_allclose(answer.astype(int), images.astype(int), atol=1)


def test_the_model_is_ready(client):
    client.wait_until_ready()
    assert client.health()


def test_metadata_agrees_across_transports(endpoints):
    assert make_client(endpoints, "grpc").metadata() == make_client(endpoints, "rest").metadata()


SEEDS, ONES = row_seeds(2), np.ones(2, np.float32)
BAD_REQUESTS = {
    "unknown signature": ("nonsense", {"seed": SEEDS, "temperature": ONES}, "nonsense"),
    "missing input": ("sample", {"seed": SEEDS}, "temperature"),
    "misnamed input": ("sample", {"seed": SEEDS, "heat": ONES}, "temperature"),
    "fractions for integers": ("sample", {"seed": SEEDS + 0.5, "temperature": ONES}, ""),
    "wrong width": ("sample", {"seed": np.zeros([2, 3], np.int32), "temperature": ONES}, ""),
    "wrong rank": ("sample", {"seed": SEEDS[0], "temperature": ONES}, ""),
    "different numbers of rows": ("sample", {"seed": SEEDS, "temperature": np.ones(3, np.float32)}, ""),
    "negative temperature": ("sample", {"seed": SEEDS, "temperature": -ONES}, "temperature"),
    "temperature NaN": ("sample", {"seed": SEEDS, "temperature": np.nan * ONES}, "temperature"),
    "wrong image size": ("likelihood", {"images": np.zeros([2, 3, 5, 7], np.uint8), "seed": SEEDS}, ""),
}


def ask_unchecked(client, signature, inputs):
    """Sends a request as it is; the client's own methods would refuse most of these before they ask."""
    version = client.metadata()["version"]
    request = client._transport.protocol.predict(version, signature, inputs, Expected({}))
    return client._run(client._calls._exchange(lambda: request, client._calls._clock()))


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_request_is_refused_with_its_reason_and_does_no_harm(client, case, images):
    signature, inputs, word = BAD_REQUESTS[case]
    if signature != "nonsense":
        needs(client, signature)
    with pytest.raises(ServerError) as caught:
        ask_unchecked(client, signature, inputs)
    assert caught.value.code in REFUSED
    assert word in str(caught.value) and "\n" not in str(caught.value)
    np.testing.assert_array_equal(client.sample(NUM_IMAGES, seed=3), images)


def test_unknown_model_and_version_are_not_found(endpoints, transport):
    for wrong in ({"model": "no_such_model"}, {"version": 987654}):
        client = make_client(endpoints, transport, **wrong)
        for ask in (client.metadata, client.status, lambda client=client: client.sample(1)):
            with pytest.raises(ServerError) as caught:
                ask()
            assert caught.value.code == "NOT_FOUND"


def test_named_version_is_the_served_one(endpoints, transport, client, images):
    version = client.metadata()["version"]
    named = make_client(endpoints, transport, version=version)
    np.testing.assert_array_equal(named.sample(NUM_IMAGES, seed=3), images)
    assert set(named.status()) == {version}


def test_many_large_requests_at_once(endpoints, transport, images):
    """Threads share a client; 64 rows fit in one request."""
    import concurrent.futures

    client = make_client(endpoints, transport)
    expected = client.sample(64, seed=1)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for answer in threads.map(lambda _: client.sample(64, seed=1), range(8)):
            np.testing.assert_array_equal(answer, expected)
