"""TF Serving's JSON for tensors: converts requests to numpy arrays and numpy arrays to responses.

https://www.tensorflow.org/tfx/serving/api_rest has the format: `instances` (a list of rows) or `inputs` (a column for
each input); the answer has `predictions` or `outputs`.

NaN, Infinity and -Infinity are read and written as these bare words, as TF Serving does. They are an extension of
JSON: Python's `json` reads them, a strict parser such as orjson does not. So orjson, which is several times faster, reads and
writes what has none of them.

One difference is intended: TF Serving wraps an integer that does not fit (256 as uint8 becomes 0); here it is an
error.
"""

import base64
import binascii
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from .errors import RequestError, invalid

ROWS, COLUMNS = "instances", "inputs"
_SHORT = 60
_MAX_DEPTH = 64  # of numpy's arrays


def parse_request(body: bytes | bytearray) -> tuple[str, str, Any]:
    """Reads the body of a `:predict` request.

    Args:
        body: bytes.

    Returns:
        (signature name, "" for the default; ROWS or COLUMNS; the value under that key).

    Raises:
        RequestError: INVALID_ARGUMENT if it is not JSON, or not of TF Serving's form.
    """
    document = _parsed(body)
    if not isinstance(document, dict):
        raise invalid(f"the request must be a JSON object, received {_describe(document)}")
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise invalid(f"'signature_name' must be a string, received {_describe(signature_name)}")
    formats = [key for key in (ROWS, COLUMNS) if key in document]
    if len(formats) != 1:
        raise invalid(f"the request needs exactly one of 'instances' and 'inputs', received {formats or 'neither'}")
    return signature_name, formats[0], document[formats[0]]


def to_arrays(request_format: str, value: Any, specs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a request.

    Args:
        request_format: ROWS or COLUMNS.
        value: the value under that key.
        specs: {input name: an object with `dtype`}, the inputs of the signature.

    Returns:
        {input name: numpy array of the signature's dtype}; shapes are left to the caller.

    Raises:
        RequestError: INVALID_ARGUMENT, naming the input and the value that does not fit.
    """
    columns = _columns_of_rows(value, specs) if request_format == ROWS else _columns(value, specs)
    return {name: _to_array(name, column, specs[name].dtype) for name, column in columns.items()}


def to_json(request_format: str, outputs: Mapping[str, np.ndarray]) -> bytes:
    """The response: `predictions`, one entry per row, or `outputs`, one entry per tensor; a single tensor has no name.

    Args:
        request_format: ROWS or COLUMNS, that of the request.
        outputs: {output name: numpy array}.

    Returns:
        bytes, JSON.

    Raises:
        RequestError: INVALID_ARGUMENT if rows are asked for and the outputs have different numbers of them;
            UNIMPLEMENTED for a dtype that JSON has no form for.
    """
    finite = all(map(_is_finite, outputs.values()))
    values = {name: (_to_array_or_list if finite else _to_list)(name, array) for name, array in outputs.items()}
    write = _write_finite if finite else _write
    if request_format == COLUMNS:
        return write({"outputs": _unnamed(values)})
    if any(array.ndim == 0 for array in outputs.values()):
        raise invalid("an output is a scalar; ask with 'inputs' instead of 'instances'")
    if len({len(array) for array in outputs.values()}) != 1:
        sizes = {name: len(array) for name, array in outputs.items()}
        raise invalid(f"the outputs have different numbers of rows, {sizes}; ask with 'inputs' instead of 'instances'")
    if len(values) == 1:
        return write({"predictions": _unnamed(values)})
    return write({"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]})


def _unnamed(values):
    return next(iter(values.values())) if len(values) == 1 else values


def _columns_of_rows(rows, specs):
    if not isinstance(rows, list) or not rows:
        raise invalid(f"'instances' must be a list of at least one row, received {_describe(rows)}")
    named = [isinstance(row, dict) and not _is_base64(row) for row in rows]
    if not any(named):
        if len(specs) != 1:
            raise invalid(f"'instances' has bare values, but the signature has several inputs: give each row as an"
                          f" object of [{', '.join(sorted(specs))}]")
        return {next(iter(specs)): rows}
    if not all(named):
        raise invalid(f"row {named.index(not named[0])} of 'instances' is not of the same kind as row 0: objects and"
                      f" bare values cannot be mixed")
    for index, row in enumerate(rows):
        if set(row) != set(specs):
            raise invalid(f"row {index} of 'instances' has [{', '.join(sorted(row))}], the signature's inputs are"
                          f" [{', '.join(sorted(specs))}]")
    return {name: [row[name] for row in rows] for name in specs}


def _columns(value, specs):
    if not isinstance(value, dict) or _is_base64(value):
        if len(specs) != 1:
            raise invalid(f"'inputs' must be an object of [{', '.join(sorted(specs))}], received {_describe(value)}")
        return {next(iter(specs)): value}
    if set(value) != set(specs):
        raise invalid(f"'inputs' has [{', '.join(sorted(value))}], the signature's inputs are"
                      f" [{', '.join(sorted(specs))}]")
    return value


def _to_array(name, value, dtype):
    shape, flat = _flatten(name, value)
    kinds = set(map(type, flat))
    if dtype.is_integer:
        _check_kinds(name, flat, kinds, {int}, dtype)
        _check_range(name, flat, dtype)
        array = np.array(flat, dtype=dtype.as_numpy_dtype)
    elif dtype.is_floating:
        _check_kinds(name, flat, kinds, {int, float}, dtype)
        array = _floats(name, flat, dtype)
    elif dtype.is_bool:
        _check_kinds(name, flat, kinds, {bool}, dtype)
        array = np.array(flat, dtype=bool)
    elif dtype.name == "string":
        _check_kinds(name, flat, kinds, {str, dict}, dtype)
        array = np.empty(len(flat), dtype=object)
        array[:] = [_to_bytes(name, item) for item in flat]
    else:
        raise _no_json_form("input", name, dtype.name)
    return array.reshape(shape)


def _flatten(name, value):
    """(shape, list of the leaves) of nested lists; level by level, so that a large image costs no Python loop."""
    shape: list[int] = []
    level = [value]
    while True:
        kinds = set(map(type, level))
        if list not in kinds:
            return shape, level
        lengths = set(map(len, level)) if kinds == {list} else ()
        if len(lengths) != 1:
            what = f"lists of {sorted(lengths)} entries" if lengths else "lists beside single values"
            raise invalid(f"input {name!r} is ragged: {what} at depth {len(shape)}")
        shape.append(lengths.pop())
        if len(shape) > _MAX_DEPTH:
            raise invalid(f"input {name!r} is nested more than {_MAX_DEPTH} lists deep")
        level = list(itertools.chain.from_iterable(level))


def _check_kinds(name, flat, kinds, allowed, dtype):
    if kinds - allowed:
        wrong = next(item for item in flat if type(item) not in allowed)
        raise invalid(f"input {name!r} needs {dtype.name} values, received {_describe(wrong)}")


def _check_range(name, flat, dtype):
    low, high = (min(flat), max(flat)) if flat else (0, 0)
    if low < dtype.min or high > dtype.max:
        wrong = low if low < dtype.min else high
        raise invalid(f"input {name!r} needs {dtype.name} values in [{dtype.min}, {dtype.max}],"
                      f" received {_describe(wrong)}")


def _floats(name, flat, dtype):
    try:
        exact = np.array(flat, dtype=np.float64)
    except OverflowError as error:
        raise invalid(f"input {name!r} has an integer too large for {dtype.name}") from error
    with np.errstate(over="ignore"):
        array = exact.astype(dtype.as_numpy_dtype)
    overflowed = np.isinf(array.astype(np.float64)) & np.isfinite(exact)
    if overflowed.any():
        raise invalid(f"input {name!r} has {exact[overflowed][0]}, too large for {dtype.name}")
    return array


def _is_base64(value):
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _to_bytes(name, item):
    if isinstance(item, str):
        return item.encode("utf-8", errors="surrogatepass")
    if not _is_base64(item):
        raise invalid(f"input {name!r} needs strings or objects {{\"b64\": \"...\"}}, received {_describe(item)}")
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"input {name!r} is not valid base64: {error}") from error


def _is_finite(array):
    return array.dtype.kind != "f" and array.dtype.name != "bfloat16" or np.isfinite(array).all()


def _to_array_or_list(name, array):
    """What orjson writes: arrays of numbers, float32 among them in the same decimals as `_to_list`; lists of the rest."""
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        return _to_list(name, array)
    return np.ascontiguousarray(array)


def _to_list(name, array):
    if array.dtype == object:
        # TF Serving writes base64 for string outputs whose name ends with _bytes, and text for other strings.
        if name.endswith("_bytes"):
            encode = np.frompyfunc(lambda item: {"b64": base64.b64encode(item).decode("ascii")}, 1, 1)
        else:
            encode = np.frompyfunc(lambda item: item.decode("utf-8", errors="replace"), 1, 1)
        return np.asarray(encode(array), dtype=object).tolist()
    if array.dtype.kind in "biu" or array.dtype == np.float64:
        return array.tolist()
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        # The shortest decimal that gives the same float32 back: 0.2, not 0.20000000298023224.
        return array.astype(np.float32).astype(str).astype(np.float64).tolist()
    raise _no_json_form("output", name, array.dtype)


def _write(document):
    return json.dumps(document, separators=(",", ":")).encode()


def _write_finite(document):
    """JSON of a document of one key, whose value is a tensor, {name: tensor} or rows of such."""
    [(key, value)] = document.items()
    value = {name: _images(one) for name, one in value.items()} if isinstance(value, dict) else _images(value)
    return orjson.dumps({key: value}, option=orjson.OPT_SERIALIZE_NUMPY)


_DIGITS = np.array([list(b"%3d" % value) for value in range(256)], np.uint8)


def _images(value):
    """A uint8 tensor as JSON whose numbers have three places, [[  0, 12],[255,  7]]; any other value as it is.

    orjson takes twenty times as long for images as for as many numbers in one list, because a pixel is a list of its own.
    """
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim < 2 or not value.size:
        return value
    text = np.empty((*value.shape, 4), np.uint8)
    text[..., :3], text[..., 3] = _DIGITS[value], ord(",")
    for _ in range(value.ndim):  # of the innermost lists first; each element ends with a comma
        *outer, count, size = text.shape
        lists = np.empty((*outer, count * size + 2), np.uint8)
        lists[..., 0], lists[..., -2], lists[..., -1] = ord("["), ord("]"), ord(",")
        body = text.reshape(*outer, count * size)
        lists[..., 1:-2] = body[..., :-1]
        text = lists
    return orjson.Fragment(text[:-1].tobytes())


def _parsed(body):
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # Python's parser takes NaN, Infinity, UTF-16 and more, and says what is wrong
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = f"JSON parse error: {error}"
    raise invalid(reason)  # not inside of `except`: the parser's error holds the text, and would be held by this one


def _no_json_form(kind, name, dtype):
    return RequestError("UNIMPLEMENTED", f"{kind} {name!r} has dtype {dtype}, which JSON has no form for; use gRPC")


def _describe(value):
    """A value in few characters, with JSON's name for its type."""
    kinds = {dict: "object", list: "list", str: "string", bool: "boolean", int: "integer", float: "number"}
    try:
        text = json.dumps(value) if not isinstance(value, (list, dict)) else f"with {len(value)} entries"
    except (TypeError, ValueError):  # an integer too long to print
        text = "too large to print"
    return f"{kinds.get(type(value), '')} {text if len(text) <= _SHORT else text[:_SHORT] + '...'}".strip()
