"""Requests and answers of TF Serving's REST API; sends nothing (`tfcq.serving.client.transports` does). Needs NumPy alone.

orjson is used where it is installed: 64 images of 32x32x3 are 700 kB of numbers. NaN and infinity, which TF Serving has as bare
words that are not JSON, are left to Python's `json`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfcq.errors import UserError
from tfcq.serving.client.answers import DTYPE_NAMES, Expected, Request, ServerError
from tfcq.serving.client.targets import Target

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

_HTTP_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)  # what foreign JSON makes of code for ours


@dataclasses.dataclass(frozen=True)
class HttpAnswer:
    """An answer by HTTP.

    Attributes:
        status, reason: of the first line.
        headers: {name in small letters: value}.
        body: as it came.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class RestProtocol:
    """Requests to one model in column format, and the reading of their answers, which are `HttpAnswer`s."""

    def __init__(self, target: Target, through: str = "") -> None:
        if not target.address.startswith(("http://", "https://")):
            raise UserError(f"a REST address starts with http:// or https://, received {target.address!r}")
        if target.tls and not target.address.startswith("https://"):
            raise UserError(f"a REST address with TLS starts with https://, received {target.address!r}")
        self._model = f"{target.address.rstrip('/')}/v1/models/{urllib.parse.quote(target.model, safe='')}"
        self.address = self._model
        if target.version is not None:
            self.address += f"/versions/{target.version}"
        elif target.label is not None:
            self.address += f"/labels/{urllib.parse.quote(target.label, safe='')}"
        self._through = through
        self.headers = {"content-type": "application/json", "accept-encoding": "identity", **target.headers}

    def predict(self, version: int, signature: str, inputs: Mapping[str, np.ndarray], expected: Expected) -> Request:
        """A `:predict` of `version`; read as {output name: array}."""
        body: dict[str, Any] = {"signature_name": signature} if signature else {}
        body["inputs"] = inputs

        def read(content):
            outputs = _outputs(content, expected)
            try:
                return expected.checked(outputs)
            except ValueError as error:
                raise _Unfit(str(error)) from error

        return self._request(f"{self._model}/versions/{version}:predict", read, _dumps(body))

    def metadata(self) -> Request:
        """The model's metadata, read as `Client.metadata` returns it."""

        def read(content):
            answer = loads(content)
            return {
                "name": answer["model_spec"]["name"],
                "version": int(answer["model_spec"]["version"]),
                "signatures": _signatures(answer["metadata"]["signature_def"]["signature_def"]),
            }

        return self._request(f"{self.address}/metadata", read)

    def status(self) -> Request:
        """The states of the model's versions, read as `Client.status` returns them."""

        def read(content):
            return {
                int(entry["version"]): {"state": entry["state"], "error": entry["status"].get("error_message", "")}
                for entry in loads(content)["model_version_status"]
            }

        return self._request(self.address, read)

    def failed(self, url: str, code: str, reason: str, passing: bool = False) -> ServerError:
        """An error that TF Serving itself did not report: it may come from a proxy, which is therefore named."""
        return ServerError(url, code, reason + self._through, passing)

    def _request(self, url, read, body=None):
        return Request(url, body, lambda answer: self._read(url, answer, read))

    def _read(self, url, answer, read):
        """`read(body)` of TF Serving's answer in JSON; ServerError for any other answer."""
        status = answer.status
        code = "UNAVAILABLE" if status < 400 else _HTTP_CODES.get(status, f"HTTP {status}")
        coding = answer.headers.get("content-encoding", "identity").strip().lower()
        try:
            if coding not in ("", "identity"):
                raise ValueError(f"its body is packed by {coding!r}, which was not asked for")
            if status < 300:
                return read(answer.body)
            reason = loads(answer.body)["error"]
        except _UNREADABLE as error:
            server = answer.headers.get("server") or "a server that does not say its name"
            said = f"HTTP {status} {answer.reason} from {server}"
            if isinstance(error, _Unfit):
                raise self.failed(
                    url, "INTERNAL", f"{said}, whose answer is not what was asked for: {error}"
                ) from error
            body = f"bytes packed by {coding!r}" if coding not in ("", "identity") else repr(_gist(answer.body))
            where = f", which leads to {answer.headers['location']!r}" if "location" in answer.headers else ""
            raise self.failed(
                url, code, f"{said}{where}, which is not TF Serving's JSON: {body}", passing=status == 503
            ) from error
        raise ServerError(url, code, reason, passing=status == 503)


class _Unfit(ValueError):
    """TF Serving's JSON, but not the outputs that were declared."""


def loads(content: bytes) -> Any:
    """The value of JSON in UTF-8, where NaN, Infinity and -Infinity are numbers, too.

    Raises:
        ValueError: it is something else.
    """
    if orjson is not None:
        try:
            return orjson.loads(content)
        except ValueError:
            pass  # NaN, perhaps
    return json.loads(content.decode("utf-8"))


def _dumps(body):
    """JSON of dicts, texts and arrays."""
    arrays = body["inputs"].values()
    finite = all(array.dtype.kind != "f" or np.isfinite(array).all() for array in arrays)
    if orjson is not None and finite:
        return orjson.dumps(body, default=_listed, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(body, default=_listed).encode()


def _listed(array):
    """What JSON has for an array that orjson does not write itself."""
    if array.dtype.kind == "O":
        pack = np.frompyfunc(lambda item: {"b64": base64.b64encode(item).decode("ascii")}, 1, 1)
        return np.asarray(pack(array), dtype=object).tolist()
    return array.tolist()


# Lists of numbers.
#
# Nested lists of Python cost more than all the rest of a request: 65,536 lists for 64 images of 32x32x3. The numbers are
# therefore read as one flat list, and the brackets and commas compared with those that the shape must have.

_BEFORE, _AFTER = re.compile(rb'\s*\{\s*"outputs"\s*:\s*(?=\[)'), re.compile(rb"\]\s*\}\s*")
_BLANKS, _BRACKETS = b" \t\r\n", b"[]"
_NO_STRUCTURE = bytes(set(range(256)) - set(b"[],"))


def _outputs(content, expected):
    """{output name: array} of a body."""
    if len(expected.specs) == 1:
        name = next(iter(expected.specs))
        flat = _flat(content, expected.shape(name))
        if flat is not None:
            return {name: _array(name, flat, expected.specs[name]["dtype"]).reshape(expected.shape(name))}
    outputs = loads(content)["outputs"]
    if len(expected.specs) == 1:
        outputs = {next(iter(expected.specs)): outputs}  # a single output has no name
    if not isinstance(outputs, dict):
        raise _Unfit(f"expected outputs by their names, received a {type(outputs).__name__}")
    try:
        return {
            name: _array(name, value, expected.specs[name]["dtype"])
            for name, value in outputs.items()
            if name in expected.specs
        }
    except (TypeError, OverflowError) as error:
        raise _Unfit(str(error)) from error


def _flat(content, shape):
    """The list of an only output's numbers; None if they are not nested as this shape says, or cannot be read so."""
    before, end = _BEFORE.match(content), content.rfind(b"]")
    if not shape or None in shape or 0 in shape or not before or not _AFTER.fullmatch(content, max(end, 0)):
        return None
    lists = content[before.end() : end + 1]
    if b'"' in lists or b"{" in lists or lists.translate(None, _NO_STRUCTURE) != _structure(shape):
        return None
    try:
        return loads(b"[%b]" % lists.translate(None, _BRACKETS + _BLANKS))
    except ValueError:
        return None


def _structure(shape):
    """The brackets and commas of nested lists: [[,],[,]] for (2, 2)."""
    text = b""
    for size in reversed(shape):
        text = b"[%b]" % b",".join([text] * size)
    return text


def _array(name, value, dtype):
    """The array of an output's JSON.

    Raises:
        _Unfit: values that are not of the declared type, or ragged lists.
    """
    if dtype == "object":
        return _strings(name, value)
    if dtype not in _NUMPY_NAMES:
        raise _Unfit(f"output {name!r} is {dtype}, which this client does not read")
    wanted = np.dtype(dtype)
    if wanted == np.uint8 and isinstance(value, list) and value and type(value[0]) is int:
        try:
            return np.frombuffer(bytearray(value), np.uint8)  # five times as fast as `np.array`; writable
        except (TypeError, ValueError) as error:
            raise _Unfit(f"output {name!r}: expected whole numbers in 0..255 ({error})") from error
    try:
        array = np.array(value)
    except ValueError as error:
        raise _Unfit(f"output {name!r} is ragged") from error
    kinds = {"b": "b", "f": "fiu"}.get(wanted.kind, "iu")
    if array.size and array.dtype.kind not in kinds:
        raise _Unfit(f"output {name!r}: expected {dtype}, received {_kind(value)}")
    if (
        wanted.kind in "iu"
        and array.size
        and (array.min() < np.iinfo(wanted).min or array.max() > np.iinfo(wanted).max)
    ):
        raise _Unfit(f"output {name!r}: expected {dtype}, received {array.min()} to {array.max()}")
    with np.errstate(over="ignore"):
        return array.astype(wanted)


_NUMPY_NAMES = set(DTYPE_NAMES.values())


def _strings(name, value):
    """Strings as bytes; TF Serving packs those of outputs whose names end in _bytes in base64."""

    def unpack(item):
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, dict) and isinstance(item.get("b64"), str):
            return base64.b64decode(item["b64"], validate=True)
        raise _Unfit(f"output {name!r}: expected strings, received a {type(item).__name__}")

    try:
        array = np.array(value, dtype=object)
        return np.asarray(np.frompyfunc(unpack, 1, 1)(array), dtype=object)
    except (binascii.Error, UnicodeError) as error:
        raise _Unfit(f"output {name!r}: {error}") from error


def _kind(value):
    while isinstance(value, list) and value:
        value = value[0]
    return f"{type(value).__name__} {str(value)[:40]}"


def _signatures(signature_defs):
    """The `signatures` of `Client.metadata` from a SignatureDefMap's JSON."""

    def tensors(infos):
        return {
            name: {
                "dtype": DTYPE_NAMES.get(info["dtype"], info["dtype"]),
                "shape": _shape(info.get("tensor_shape", {})),
            }
            for name, info in sorted(infos.items())
        }

    # Names with two underscores are the SavedModel's own, such as __saved_model_init_op.
    return {
        name: {"inputs": tensors(signature.get("inputs", {})), "outputs": tensors(signature.get("outputs", {}))}
        for name, signature in sorted(signature_defs.items())
        if not name.startswith("__")
    }


def _shape(shape):
    if shape.get("unknown_rank"):
        return None
    sizes = [int(dimension.get("size", 0)) for dimension in shape.get("dim", [])]
    return [None if size < 0 else size for size in sizes]


def _gist(body):
    """The first meaningful line of a body, or the title if it is HTML, at most 100 characters."""
    text = body.decode("utf-8", errors="replace")
    title = re.search(r"<title>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
    lines = [line.strip() for line in ([title[1]] if title else text.splitlines())]
    meaningful = [line for line in lines if line and not re.fullmatch(r"<[^>]*>", line)]
    return " ".join((meaningful or lines or [""])[0].split())[:100]
