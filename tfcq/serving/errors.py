"""What goes wrong in a request, as one code and one readable line, the same for gRPC and REST."""

import re

import grpc

# How TF Serving's REST front end (http_server.cc) translates the canonical codes.
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
CODE_NUMBER = {code.name: code.value[0] for code in grpc.StatusCode}
_CODE_NAME = {number: name for name, number in CODE_NUMBER.items()}

# gRPC carries the message in a header, and headers are limited to 8 KiB in common proxies.
MAX_REASON_CHARACTERS = 600

_NOISE = re.compile(
    r"^(Graph execution error:|Detected at node .*|<stack traces unavailable>|File \".*|\[\[\{\{node .*)$"
)
_OPERATION_SUFFIX = re.compile(r"\s*\[Op:[^\]]*\]")
_ASSERTION = re.compile(r"assertion failed: \[([^\[\]]*)\]")


class UsageError(Exception):
    """A mistake in the flags or in a file they name; the command prints this one line and exits with status 2."""


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        code: the name of a canonical gRPC status, such as "INVALID_ARGUMENT".
        reason: what is wrong; line breaks are taken out, and a very long text is cut.
    """

    def __init__(self, code, reason):
        self.code = code
        self.reason = one_line(reason)
        super().__init__(self.reason)

    @property
    def grpc_status(self):
        """The `grpc.StatusCode` of this error."""
        return grpc.StatusCode[self.code]

    @property
    def http_status(self):
        """The HTTP status that TF Serving answers with for this code."""
        return HTTP_STATUS[self.code]


def invalid(reason):
    """A `RequestError` that says INVALID_ARGUMENT."""
    return RequestError("INVALID_ARGUMENT", reason)


def one_line(text):
    """The text without TensorFlow's stack of nodes, in one line of at most `MAX_REASON_CHARACTERS` characters.

    An assertion of the graph arrives as four or five lines, of which one has the author's sentence; that sentence
    comes first here, and the values that TensorFlow printed follow it.
    """
    lines = [line.strip() for line in str(text).splitlines()]
    kept = " ".join(line for line in lines if line and not _NOISE.match(line))
    kept = _ASSERTION.sub(lambda match: f"assertion failed: {match.group(1)}".rstrip(), _OPERATION_SUFFIX.sub("", kept))
    if len(kept) > MAX_REASON_CHARACTERS:
        kept = kept[: MAX_REASON_CHARACTERS - 3] + "..."
    return kept


def as_request_error(error):
    """Any exception as a `RequestError`: its own code if it is one of TensorFlow's, INTERNAL otherwise."""
    if isinstance(error, RequestError):
        return error
    # tf.errors.OpError numbers its codes as gRPC does.
    code = _CODE_NAME.get(getattr(error, "error_code", None), "INTERNAL")
    message = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
    return RequestError(code, message)
