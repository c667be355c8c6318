"""Which addresses the client asks through a proxy."""

import asyncio
import base64
import os

import pytest
from client_cases import Handler, closed_port, model_server, running

from tfcq.errors import UserError
from tfcq.serving.client import proxies
from tfcq.serving.client.async_client import AsyncClient
from tfcq.serving.client.client import Client, ServerError

# Proxies.


class ProxyHandler(Handler):
    """A proxy that knows no way out; counts in `server.asked` who was asked for."""

    server_version, sys_version = "Squid/6.1", ""

    def refuse(self):
        self.server.asked.append(self.path)
        self.server.credentials.append(self.headers["Proxy-Authorization"])
        self.answer(503, b"<html><head><title>ERROR: no such machine</title></head></html>")

    do_GET = do_POST = do_CONNECT = refuse


@pytest.fixture
def proxy(monkeypatch):
    """A proxy of everything, in no variable yet."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with running(ProxyHandler, asked=[], credentials=[]) as server:
        server.address = f"127.0.0.1:{server.port}"
        yield server


VARIABLES = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "127.1.2.3", "0.0.0.0"])
def test_this_machine_is_asked_without_a_proxy(proxy, monkeypatch, host):
    for name in VARIABLES:
        monkeypatch.setenv(name, f"http://{proxy.address}")
    with model_server(address="0.0.0.0") as server:
        assert len(Client.rest(f"http://{host}:{server.port}", "m", timeout=5).sample(2)) == 2
    with pytest.raises(ServerError) as caught:
        Client.grpc(f"{host}:{closed_port()}", "m", timeout=5).status()
    assert caught.value.code == "UNAVAILABLE" and "proxy" not in str(caught.value)
    assert not proxy.asked


@pytest.mark.parametrize(("name", "scheme", "code", "said"), [
    ("http_proxy", "http", "UNAVAILABLE", "HTTP 503 Service Unavailable from Squid/6.1"),
    ("HTTP_PROXY", "http", "UNAVAILABLE", "not TF Serving's JSON: 'ERROR: no such machine'"),
    ("https_proxy", "https", "UNAVAILABLE", "503"),
])
@pytest.mark.parametrize("family", [Client, AsyncClient])
def test_other_machines_are_asked_through_the_proxy_which_is_named(proxy, monkeypatch, family, name, scheme, code, said):
    monkeypatch.setenv(name, f"http://me:secret@{proxy.address}")

    async def ask():
        async with AsyncClient.rest(f"{scheme}://models.example:8501", "m", timeout=30, retries=0) as client:
            await client.status()

    with pytest.raises(ServerError) as caught:
        if family is AsyncClient:
            asyncio.run(ask())
        else:
            Client.rest(f"{scheme}://models.example:8501", "m", timeout=30, retries=0).status()
    assert proxy.credentials == ["Basic " + base64.b64encode(b"me:secret").decode()]
    text = str(caught.value)
    assert caught.value.code == code and said in text and "\n" not in text
    assert f"asked through the proxy of {name.lower()}=http://{proxy.address} (no_proxy" in text and "secret" not in text
    assert any("models.example:8501" in path for path in proxy.asked)


@pytest.mark.parametrize("address", ["socks5://proxy:1", "http://"])
def test_a_proxy_that_does_not_speak_http_is_refused(proxy, monkeypatch, address):
    monkeypatch.setenv("http_proxy", address)
    with pytest.raises(UserError, match="http_proxy: expected http://HOST:PORT"):
        Client.rest("http://models.example:8501", "m")


def test_no_proxy_is_honoured(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "models.invalid")
    with pytest.raises(ServerError, match="no server answers there") as caught:
        Client.rest("http://models.invalid:8501", "m", timeout=5, retries=0).status()
    assert "proxy" not in str(caught.value) and not proxy.asked


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_grpc_asks_other_machines_through_its_proxy(proxy, monkeypatch, name):
    monkeypatch.setenv(name, f"http://me:secret@{proxy.address}")
    with pytest.raises(ServerError) as caught:
        Client.grpc("models.example:8500", "m", timeout=5).status()
    assert f"asked through the proxy of {name}=http://{proxy.address}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert proxy.asked and "models.example:8500" in proxy.asked[0]


@pytest.mark.parametrize(("address", "here"), [
    ("localhost:8500", True), ("[::1]:8500", True), ("127.0.0.1:8500", True), ("dns:localhost:8500", True),
    ("ipv4:127.0.0.1:8500", True), ("unix:/run/model", True), ("[::ffff:127.0.0.1]:8500", True), ("a.localhost:1", True),
    ("models.example:8500", False), ("10.0.0.1:8500", False), ("[2001:db8::1]:8500", False), ("localhost.example:8500", False),
    ("[::ffff:10.0.0.1]:1", False), ("[fe80::1%eth0]:1", False),
])
def test_what_is_this_machine(address, here):
    assert proxies.is_here(proxies.grpc_host(address)) == here
