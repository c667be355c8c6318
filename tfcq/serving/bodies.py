"""Bodies of HTTP requests, like TF Serving's: of a known length or chunked, plain or gzipped.

TF Serving's HTTP server is built on libevent: a body is chunked if Transfer-Encoding is exactly "chunked", `Expect:
100-continue` is answered before the body is read, and any other expectation with 417 (http.c of libevent); a body whose
Content-Encoding contains "gzip" is unpacked, up to 100 MiB (evhttp_request.cc, gzip_zlib.h). It never compresses an
answer. If a body cannot be unpacked, TF Serving continues with an empty one and reports "JSON parse error"; here the message
says what is wrong, with the same status.
"""

import zlib
from email.message import Message
from io import BufferedIOBase

from .errors import RequestError, invalid

MAX_BODY_BYTES = 2**31 - 1  # the limit of a gRPC message
MAX_UNPACKED_BYTES = 100 * 2**20
_MAX_LINE_BYTES = 1000  # for the size of a chunk with its extensions, or for a trailer
_MAX_TRAILERS = 100
_PIECE_BYTES = 2**20


def check_length(headers: Message) -> int | None:
    """The Content-Length of a request; None if its body is chunked, 0 if it has none.

    Raises:
        RequestError: INVALID_ARGUMENT for a length that is not a number, too large, given twice with different values, or
        given
            together with a Transfer-Encoding (two servers in a row could read different requests from it); UNIMPLEMENTED for
            another transfer encoding than chunked.
    """
    encoding = headers.get("Transfer-Encoding")
    lengths = set(headers.get_all("Content-Length", ()))
    if encoding is not None:
        if encoding.strip().lower() != "chunked" or len(headers.get_all("Transfer-Encoding", ())) > 1:
            raise RequestError("UNIMPLEMENTED", f"Transfer-Encoding must be chunked, received {encoding[:40]!r}")
        if lengths:
            raise invalid("a request has either Content-Length or Transfer-Encoding, received both")
        return None
    if not lengths:
        return 0
    length = lengths.pop().strip() if len(lengths) == 1 else ", ".join(sorted(lengths))
    if not (length.isascii() and length.isdecimal()) or int(length) > MAX_BODY_BYTES:
        raise invalid(f"Content-Length must be an integer of at most {MAX_BODY_BYTES}, received {length[:40]!r}")
    return int(length)


def read(headers: Message, stream: BufferedIOBase) -> bytes:
    """The body of a request, unpacked: bytes.

    Args:
        headers: the request's headers.
        stream: binary file from which the body is read.

    Raises:
        RequestError: what `check_length` raises; INVALID_ARGUMENT for a body that is too large, or is not chunks or gzip as
        declared. ConnectionError: if the client hangs up inside the body.
    """
    length = check_length(headers)
    body = _chunks(stream) if length is None else _exactly(stream, length)
    encodings = headers.get("Content-Encoding", "").lower()
    if not body or encodings.strip() in ("", "identity"):
        return body
    if "gzip" not in encodings:
        raise invalid(f"Content-Encoding must be gzip or none, received {encodings[:40]!r}")
    return _unpacked(body)


def _chunks(stream):
    body = bytearray()
    while True:
        size = _line(stream).partition(b";")[0].strip()
        try:
            if not size.isalnum():  # int() takes signs and underscores too
                raise ValueError
            length = int(size, 16)
        except ValueError as error:
            raise invalid(f"a chunk must begin with its size in hexadecimal digits, received {size[:40]!r}") from error
        if len(body) + length > MAX_BODY_BYTES:
            raise invalid(f"a body may have {MAX_BODY_BYTES} bytes, received more")
        if length == 0:
            break
        body += _exactly(stream, length)
        if _line(stream):
            raise invalid("a chunk is longer than it says")
    for _ in range(_MAX_TRAILERS):
        if not _line(stream):
            return bytes(body)
    raise invalid(f"a chunked body may have {_MAX_TRAILERS} trailers, received more")


def _line(stream):
    """A line without its end."""
    line = stream.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        if len(line) == _MAX_LINE_BYTES:
            raise invalid(f"a line between chunks may have {_MAX_LINE_BYTES} bytes, received more")
        raise ConnectionError("the client hung up between chunks")
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _exactly(stream, count):
    """`count` bytes, read in pieces, so that the memory a header claims is not allocated before the bytes arrive."""
    pieces = []
    while count > 0:
        piece = stream.read(min(count, _PIECE_BYTES))
        if not piece:
            raise ConnectionError("the client hung up inside the body")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _unpacked(body):
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)  # only gzip
    try:
        content = unpacker.decompress(body, MAX_UNPACKED_BYTES + 1)
    except zlib.error as error:
        raise invalid(f"the body is not gzip, as its Content-Encoding says: {error}") from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise invalid(f"a gzipped body may have {MAX_UNPACKED_BYTES} bytes unpacked, received more")
    if not unpacker.eof:
        raise invalid("the body is not gzip, as its Content-Encoding says: it ends too early")
    if unpacker.unused_data:
        raise invalid("the body is not gzip, as its Content-Encoding says: something stands behind its end")
    return content
