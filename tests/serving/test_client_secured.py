"""TLS, headers and tokens."""

import asyncio
import ssl
import subprocess

import pytest
from client_cases import GrpcModel, closed_port, grpc_server, model_server

from tfcq.errors import UserError
from tfcq.serving.client.async_client import AsyncClient
from tfcq.serving.client.client import Client, ServerError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(path of a certificate of localhost, path of its key)."""
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("no openssl, which makes the certificate")
    return certificate, key


@pytest.fixture(scope="module")
def addresses(certificate):
    """{transport: address} of servers by TLS."""
    import grpc

    path, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), path.read_bytes())])
    with model_server() as server, grpc_server(GrpcModel(), credentials) as address:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield {"rest": f"https://localhost:{server.port}", "grpc": f"localhost:{address.split(':')[1]}"}


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_server_with_tls_is_asked_by_the_certificate_that_is_given(addresses, certificate, transport):
    with getattr(Client, transport)(addresses[transport], "m", ca_file=certificate[0], timeout=60) as client:
        assert len(client.sample(2)) == 2
        assert client.health()


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_async_too(addresses, certificate, transport):
    async def ask():
        async with getattr(AsyncClient, transport)(addresses[transport], "m", ca_file=certificate[0], timeout=60) as client:
            return await client.sample(2)

    assert len(asyncio.run(ask())) == 2


@pytest.mark.parametrize(("transport", "options"), [("rest", {}), ("grpc", {"tls": True})])
def test_a_certificate_that_nobody_vouches_for_is_refused(addresses, transport, options):
    with getattr(Client, transport)(addresses[transport], "m", retries=0, timeout=30, **options) as client:
        with pytest.raises(ServerError) as caught:
            client.status()
    assert caught.value.code == "UNAVAILABLE" and "\n" not in str(caught.value)
    assert "certificate is not one to trust" in str(caught.value) and "ca_file" in str(caught.value)


@pytest.mark.parametrize(("asked", "transport", "options", "said"), [
    ("rest", "grpc", {}, "does not speak gRPC .* is it the port of REST"),
    ("grpc", "grpc", {"tls": True}, "no server answers there .* does it speak TLS"),
    ("rest", "https", {}, "does not speak TLS; http:// asks without"),
    ("nobody", "grpc", {}, r"no server answers there \(\S+: Failed to connect to remote host: Connection refused\)$"),
])
def test_a_wrong_port_and_an_unexpected_encryption_are_explained(asked, transport, options, said):
    with model_server() as server, grpc_server(GrpcModel()) as address:
        port = {"rest": server.port, "grpc": address.split(":")[1], "nobody": closed_port()}[asked]
        for kind in (Client, AsyncClient):
            if transport == "https":
                client = kind.rest(f"https://127.0.0.1:{port}", "m", retries=0, timeout=30)
            else:
                client = kind.grpc(f"127.0.0.1:{port}", "m", retries=0, timeout=30, **options)
            with pytest.raises(ServerError, match=said) as caught:
                answer = client.status()
                if kind is AsyncClient:
                    asyncio.run(answer)
            assert caught.value.code == "UNAVAILABLE"


def test_a_grpc_server_with_tls_that_is_asked_without_is_explained(addresses):
    with Client.grpc(addresses["grpc"], "m", retries=0, timeout=30) as client:
        with pytest.raises(ServerError, match=r"no server answers there .* does it expect TLS \(tls=True\)\?$"):
            client.status()


def test_headers_and_token_are_sent_and_not_shown():
    model = GrpcModel()
    with model_server() as server, grpc_server(model) as address:
        for transport, where in {"rest": server.url, "grpc": address}.items():
            with getattr(Client, transport)(where, "m", headers={"X-Team": "a b"}, token="s3cret") as client:
                client.sample(1)
                assert "s3cret" not in repr(client) and "s3cret" not in repr(vars(client)["_target"])
        seen = [{name.lower(): value for name, value in one.headers.items()} for one in server.asked]
    assert all(metadata["tfcq-tensor-content"] == "true" for _, _, metadata in model.asked)
    for sent in [*seen, *(metadata for _, _, metadata in model.asked)]:
        assert (sent["x-team"], sent["authorization"]) == ("a b", "Bearer s3cret")


@pytest.mark.parametrize(("options", "said"), [
    ({"headers": {"a b": "c"}}, "headers: expected names of letters"),
    ({"headers": {"a": "b\r\nc: d"}}, "expected one line of ASCII as the value of 'a'"),
    ({"headers": {"a": 1}}, "expected one line of ASCII as the value of 'a'"),
    ({"headers": ["a"]}, "headers: expected a dict of texts"),
    ({"token": "s3cret\n"}, "expected one line of ASCII as the value of 'authorization'"),
    ({"token": "a", "headers": {"Authorization": "b"}}, "a token or a header Authorization, received both"),
    ({"version": 1, "label": "stable"}, "a version or a label, received both"),
    ({"version": "1"}, "version: expected an int"),
    ({"label": ""}, "label: expected a text"),
    ({"timeout": 0}, "timeout: expected seconds above 0"),
    ({"timeout": float("nan")}, "timeout: expected seconds above 0"),
    ({"timeout": "1"}, "timeout: expected seconds above 0"),
    ({"parallel": 0}, "parallel: expected at least 1"),
    ({"retries": -1}, "retries: expected at least 0"),
    ({"ca_file": "no/such.pem"}, "ca_file no/such.pem: expected certificates in PEM"),
    ({"ca_file": __file__}, "expected certificates in PEM, received a file that cannot be used"),
    ({"model": ""}, "model: expected the model's name"),
    ({"address": 8501}, "address: expected a str"),
])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_options_that_cannot_work_are_refused_at_once(transport, options, said):
    address = f"https://localhost:{closed_port()}" if transport == "rest" else "localhost:1"
    with pytest.raises(UserError, match=said) as caught:
        getattr(Client, transport)(**({"address": address, "model": "m"} | options))
    assert "\n" not in str(caught.value) and "s3cret" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://", "http://:8501", "http://host:port", "http://[::1", "http://me:s3cret@host:1", "http://host?x",
                                     "http://host:8501/v1/models/m"])
def test_addresses_that_are_none_are_refused(address):
    with pytest.raises(UserError, match="a REST address") as caught:
        Client.rest(address, "m")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("address", ["localhost", "10.0.0.1", "[::1]", ""])
def test_a_grpc_address_has_a_port(address):
    with pytest.raises(UserError, match="a gRPC address is host:port, received .* without a port"):
        Client.grpc(address, "m")


def test_a_ca_file_needs_https(certificate):
    with pytest.raises(UserError, match="with TLS starts with https://"):
        Client.rest("http://localhost:8501", "m", ca_file=certificate[0])
