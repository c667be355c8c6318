"""Errors of a request: one code and one readable line, the same for gRPC and REST."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

# The canonical codes, in the order of their numbers (google/rpc/code.proto), and how TF Serving's REST front end
# (http_server.cc) translates them. The numbers are not taken from grpc, so that `tfcq serve` can report that it is missing.
HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
CODE_NUMBER = {name: number for number, name in enumerate(HTTP_STATUS)}
_CODE_NAME = {number: name for name, number in CODE_NUMBER.items()}

# gRPC carries the message in a header, and headers are limited to 8 KiB in common proxies.
MAX_REASON_CHARACTERS = 600

_NOISE = re.compile(
    r"^(Graph execution error:|Detected at node .*|<stack traces unavailable>|File \".*|\[\[\{\{node .*)$"
)
_OPERATION_SUFFIX = re.compile(r"\s*\[Op:[^\]]*\]")
_ASSERTION = re.compile(r"assertion failed: \[((?:[^\[\]]|\[[^\[\]]*\])*)\]")


class UsageError(Exception):
    """A mistake in the flags or in a file they name; the command prints this one line and exits with status 2."""


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        code: the name of a canonical gRPC status, such as "INVALID_ARGUMENT".
        reason: what is wrong; line breaks are removed, and a very long text is cut.
    """

    def __init__(self, code: str, reason: object) -> None:
        self.code = code
        self.reason = one_line(reason)
        super().__init__(self.reason)

    @property
    def grpc_status(self) -> grpc.StatusCode:
        """The `grpc.StatusCode` of this error."""
        import grpc

        return grpc.StatusCode[self.code]

    @property
    def http_status(self) -> int:
        """The HTTP status of TF Serving's answer for this code."""
        return HTTP_STATUS[self.code]


def invalid(reason: object) -> RequestError:
    """A `RequestError` with the code INVALID_ARGUMENT."""
    return RequestError("INVALID_ARGUMENT", reason)


def one_line(text: object) -> str:
    """The text without TensorFlow's stack of nodes, in one line of at most `MAX_REASON_CHARACTERS` characters.

    An assertion of the graph arrives as four or five lines, one of which is the author's sentence; that sentence comes
    first here, and the values that TensorFlow printed follow it.
    """
    lines = [line.strip() for line in str(text).splitlines()]
    kept = " ".join(line for line in lines if line and not _NOISE.match(line))
    kept = _ASSERTION.sub(lambda match: f"assertion failed: {match.group(1)}".rstrip(), _OPERATION_SUFFIX.sub("", kept))
    if len(kept) > MAX_REASON_CHARACTERS:
        kept = kept[: MAX_REASON_CHARACTERS - 3] + "..."
    return kept


def as_request_error(error: Exception) -> RequestError:
    """Any exception as a `RequestError`: its own code if it is one of TensorFlow's, INTERNAL otherwise."""
    if isinstance(error, RequestError):
        return error
    # tf.errors.OpError numbers its codes as gRPC does.
    code = _CODE_NAME.get(getattr(error, "error_code", -1), "INTERNAL")
    message = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
    return RequestError(code, message)


def code_and_reason(error: Exception) -> tuple[str, str]:
    """The code and the line of any exception, for whoever answers it.

    A `RequestError` in a variable of the function that caught it is kept, with all that the function's frame refers to, until
    the garbage collector comes by: its traceback refers to the frame, and the frame to it. Two strings refer to nothing.
    """
    failure = as_request_error(error)
    return failure.code, failure.reason
