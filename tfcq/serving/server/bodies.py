"""Bodies of HTTP requests, like TF Serving's: of a known length or chunked, plain or gzipped.

TF Serving's HTTP server is built on libevent: `Expect: 100-continue` is answered before the body is read, and any other
expectation with 417 (http.c of libevent); a body whose Content-Encoding contains "gzip" is unpacked, up to 100 MiB
(evhttp_request.cc, gzip_zlib.h). It never compresses an answer. If a body cannot be unpacked, TF Serving continues with an empty
one and reports "JSON parse error"; here the message says what is wrong, with the same status.

Chunks and Content-Length are read by h11, which refuses what two servers in a row could read differently.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .errors import invalid

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Receive

    from .transfers import Transfer

MAX_BODY_BYTES = 64 * 2**20  # 64 images of 256x256x3 are 50 MB of JSON; as Python's lists it may be 34 times as much
MAX_UNPACKED_BYTES = 100 * 2**20
_SHORT = 40


def has_body(headers: Headers) -> bool:
    """Whether a request has a body that is to be read.

    Raises:
        HTTPException: 417 for an expectation other than 100-continue.
        RequestError: INVALID_ARGUMENT for a body that is too large, or that has both a length and a transfer encoding.
    """
    expectation = headers.get("expect", "100-continue")
    if expectation.lower() != "100-continue":
        raise HTTPException(417, f"Expect must be 100-continue, received {expectation[:_SHORT]!r}")
    length = headers.get("content-length")
    if "transfer-encoding" in headers:
        if length is not None:
            raise invalid("a request has either Content-Length or Transfer-Encoding, received both")
        return True
    if length is not None and int(length) > MAX_BODY_BYTES:  # h11 has checked that it is a number of at most 20 digits
        raise _too_large(length)
    return length is not None and int(length) > 0


async def read(receive: Receive, transfer: Transfer) -> bytearray:
    """The body of a request as it was sent, packed or not.

    Args:
        receive: ASGI's source of the body.
        transfer: what bounds its time and its memory, which stays held.

    Raises:
        RequestError: INVALID_ARGUMENT for a body that is too large, UNAVAILABLE if there is no memory for it.
        HTTPException: 408 if it comes too slowly.
        ClientDisconnect: if the client hangs up inside the body.
    """
    body, more = bytearray(), True
    try:
        async with transfer.timed():
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                piece, more = message["body"], message["more_body"]
                if len(body) + len(piece) > MAX_BODY_BYTES:
                    raise _too_large("more")
                transfer.hold(len(piece))
                transfer.moved(len(piece))
                body += piece
    except TimeoutError:
        raise HTTPException(408, f"the body comes too slowly: {len(body)} bytes so far") from None
    return body


def unpacked(body: bytes | bytearray, encodings: str) -> bytes | bytearray:
    """A body without its compression.

    Args:
        body: as it was sent.
        encodings: its Content-Encoding, "" for none.

    Raises:
        RequestError: INVALID_ARGUMENT for another encoding than gzip, and for a body that is not gzip or too large.
    """
    encodings = encodings.strip().lower()
    if not body or encodings in ("", "identity"):
        return body
    if "gzip" not in encodings:
        raise invalid(f"Content-Encoding must be gzip or none, received {encodings[:_SHORT]!r}")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)  # only gzip
    try:
        content, reason = unpacker.decompress(body, MAX_UNPACKED_BYTES + 1), ""
    except zlib.error as error:
        content, reason = b"", str(error)
    if len(content) > MAX_UNPACKED_BYTES:
        raise invalid(f"a gzipped body may have {MAX_UNPACKED_BYTES} bytes unpacked, received more")
    if not reason and not unpacker.eof:
        reason = "it ends too early"
    if not reason and unpacker.unused_data:
        reason = "something stands behind its end"
    if reason:
        raise invalid(f"the body is not gzip, as its Content-Encoding says: {reason}")
    return content


def _too_large(received):
    return invalid(f"a body may have {MAX_BODY_BYTES} bytes, received {received}; send fewer rows, or use gRPC")
