"""Where the local server listens, and bodies of requests: gzipped, chunked, with an expectation, and broken ones."""

import gzip
import http.client
import json
import socket
import subprocess
import time
import tracemalloc
import zlib

import pytest
from conftest import free_ports

PATH = "/v1/models/toy:predict"
BODY = json.dumps({"instances": [{"seed": [1, 2], "temperature": 1.0}]}).encode()
ZIPPED = gzip.compress(BODY, mtime=0)


def chunked(body, sizes=(1, 7, 10**6)):
    """A chunked body whose chunks have these sizes."""
    chunks = []
    for size in sizes:
        part, body = body[:size], body[size:]
        if part:
            chunks.append(b"%x\r\n%s\r\n" % (len(part), part))
    return b"".join(chunks) + b"0\r\n\r\n"


def exchange(port, headers, body, host="127.0.0.1"):
    """(status, error or None) of a request whose headers and body are sent as they are."""
    request = b"".join(b"%s: %s\r\n" % (name.encode(), value.encode()) for name, value in headers)
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n%s" % (PATH.encode(), request, body))
        with connection.makefile("rb") as answer:
            head, _, content = answer.read().partition(b"\r\n\r\n")
    assert b"content-encoding" not in head.lower()  # nor does TF Serving compress what it answers
    answer = json.loads(content)
    if "error" in answer:
        assert "\n" not in answer["error"]
    return int(head.split()[1]), answer.get("error")


def length(body):
    return ("Content-Length", str(len(body)))


CHUNKED, GZIP = ("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")


@pytest.mark.parametrize(("headers", "body"), [
    ([length(BODY)], BODY),
    ([length(ZIPPED), GZIP], ZIPPED),
    ([length(ZIPPED), ("Content-Encoding", "x-gzip")], ZIPPED),
    ([length(BODY), ("Content-Encoding", "identity")], BODY),
    ([length(BODY), ("Accept-Encoding", "gzip, deflate")], BODY),
    ([CHUNKED], chunked(BODY)),
    ([CHUNKED], chunked(BODY, [1] * len(BODY))),
    ([("Transfer-Encoding", " Chunked ")], chunked(BODY)),
    ([CHUNKED], b"00%x;name=value\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (len(BODY), BODY)),
    ([CHUNKED, GZIP], chunked(ZIPPED)),
], ids=["plain", "gzip", "x-gzip", "identity", "accept", "chunks", "bytes", "Chunked", "extension", "chunked-gzip"])
def test_what_a_client_may_send(toy_server, headers, body):
    assert exchange(toy_server.rest_port, headers, body) == (200, None)


TWICE = ZIPPED + ZIPPED
ZEROS = gzip.compress(bytes(100 * 2**20 + 1), mtime=0)  # 100 KB


@pytest.mark.parametrize(("headers", "body", "status", "reason"), [
    ([length(BODY), GZIP], BODY, 400, "the body is not gzip"),
    ([length(ZIPPED[:-9]), GZIP], ZIPPED[:-9], 400, "it ends too early"),
    ([length(ZIPPED), GZIP], ZIPPED[:-5] + b"x" + ZIPPED[-4:], 400, "incorrect data check"),
    ([length(TWICE), GZIP], TWICE, 400, "something stands behind its end"),
    ([length(ZEROS), GZIP], ZEROS, 400, "104857600 bytes unpacked"),
    ([length(BODY), ("Content-Encoding", "br")], BODY, 400, "Content-Encoding must be gzip"),
    ([length(ZIPPED)], ZIPPED, 400, "JSON parse error"),
    ([CHUNKED, length(BODY)], chunked(BODY), 400, "received both"),
    # h11's words from here:
    ([length(BODY), ("Content-Length", "3")], BODY, 400, "conflicting Content-Length"),
    ([("Transfer-Encoding", "gzip, chunked")], chunked(ZIPPED), 501, "Only Transfer-Encoding: chunked"),
    ([CHUNKED], b"five\r\n", 400, "illegal chunk header"),
    ([CHUNKED], b"-5\r\n", 400, "illegal chunk header"),
    ([CHUNKED], b"\r\n", 400, "illegal chunk header"),
    ([CHUNKED], b"%x\r\n" % 2**90, 400, "illegal chunk header"),
    ([CHUNKED], b"1\r\n{}\r\n0\r\n\r\n", 400, "malformed chunk footer"),
    ([CHUNKED], b"1;" + b"x" * 70000, 431, "too long"),
    ([CHUNKED], b"0\r\n" + b"a: b\r\n" * 10000, 431, "too long"),
    ([length(BODY), ("Expect", "200-ok")], BODY, 417, "100-continue"),
])
def test_what_is_refused_in_a_line(toy_server, headers, body, status, reason):
    received, error = exchange(toy_server.rest_port, headers, body)
    assert received == status and reason in error
    assert exchange(toy_server.rest_port, [length(BODY)], BODY) == (200, None)


def test_a_gzip_bomb_takes_little_memory():
    from tfcq.serving.server import bodies
    from tfcq.serving.server.errors import RequestError

    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(2**26)) for _ in range(8)) + packer.flush()  # 512 MiB of zeros in 2
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="bytes unpacked"):
            bodies.unpacked(bomb, "gzip")
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20  # the limit is 100, and zlib's buffer doubles as it grows
    finally:
        tracemalloc.stop()


def test_the_body_is_asked_for_before_it_is_read(toy_server):
    with socket.create_connection(("127.0.0.1", toy_server.rest_port), timeout=30) as connection:
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (PATH.encode(), len(BODY))
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(BODY)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_a_chunked_request_that_stops_does_no_harm(toy_server):
    with socket.create_connection(("127.0.0.1", toy_server.rest_port), timeout=30) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab" % PATH.encode())
    time.sleep(0.1)
    assert exchange(toy_server.rest_port, [length(BODY)], BODY) == (200, None)
    assert "Traceback" not in toy_server.log


def test_the_connection_goes_on_after_a_chunked_body(toy_server):
    connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=30)
    for _ in range(3):
        connection.request("POST", PATH, iter([BODY[:9], BODY[9:]]), encode_chunked=True)
        sent_from = connection.sock.getsockname()
        assert connection.getresponse().read().startswith(b'{"predictions"')
        assert connection.sock.getsockname() == sent_from
    connection.close()


@pytest.mark.parametrize("options", [
    ["--compressed"],
    ["-H", "Transfer-Encoding: chunked"],
    ["-H", "Expect: 100-continue"],
    ["-H", "Content-Encoding: gzip", "--data-binary", "@body.gz"],
], ids=["compressed", "chunked", "expect", "gzip"])
def test_curl(toy_server, tmp_path, options):
    (tmp_path / "body.gz").write_bytes(ZIPPED)
    data = [] if "@body.gz" in options else ["-d", BODY.decode()]
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "30", *options, *data, toy_server.rest_url + PATH]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no curl here")
    assert "predictions" in json.loads(done.stdout), done.stderr


def own_addresses():
    """This machine's addresses other than the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return []
        return [probe.getsockname()[0]]


def listens(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_only_this_machine_is_served_unless_told_otherwise(toy_server):
    ready = f"gRPC at 127.0.0.1:{toy_server.grpc_port}, REST at 127.0.0.1:{toy_server.rest_port}"
    assert ready in toy_server.output
    for port in (toy_server.grpc_port, toy_server.rest_port):
        assert listens("127.0.0.1", port)
        # 127.0.0.2 is the machine itself, as every address beginning with 127, but not what was bound.
        assert not any(listens(host, port) for host in ("127.0.0.2", *own_addresses()))


@pytest.mark.parametrize(("host", "where", "reached", "not_reached"), [
    ("127.0.0.2", "127.0.0.2", ["127.0.0.2"], ["127.0.0.1"]),
    ("0.0.0.0", "[::]", ["127.0.0.1", "127.0.0.2", "::1", *own_addresses()], []),
    ("::", "[::]", ["127.0.0.1", "127.0.0.2", "::1", *own_addresses()], []),
    ("::1", "[::1]", ["::1"], ["127.0.0.1"]),
    ("[::1]", "[::1]", ["::1"], ["127.0.0.1"]),
])
def test_both_apis_listen_where_they_are_told(tmp_path, host, where, reached, not_reached):
    """In this process: the front ends are bound, and serve no model."""
    from tfcq import serve
    from tfcq.serving.server.errors import UsageError
    from tfcq.serving.server.local_server import LocalServer

    if ":" in where and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    grpc_port, rest_port = free_ports(2)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    flags = serve.COMMAND.flags()
    flags.parse([f"--host={host}", f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--model_base_path={tmp_path}"])
    options, _ = serve.read_options(flags)
    address, both = options.address, LocalServer(options)
    try:
        both._grpc.start()
        both._rest.serve_forever_in_thread()
        assert address.with_port(rest_port) == f"{where}:{rest_port}"
        for port in (grpc_port, rest_port):
            assert [one for one in (*reached, *not_reached) if listens(one, port)] == reached
            with pytest.raises(UsageError, match=f"port {port} of "):
                address.check_free(port)
    finally:
        both.stop()
