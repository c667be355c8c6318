"""Checks of arguments of Python functions: one line that says what was expected and received, and how to mend it.

NumPy alone; `tfcq.inputs` does the same for all inputs of a model, and `tfcq.models.arguments` for tensors.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfcq.errors import UserError


def check_kind(name: str, value: object, kind: Any, expected: str, advice: str = "") -> None:
    """Raises UserError if `value` is not an instance of `kind`.

    Args:
        name: name of the argument, for the message.
        value: the argument.
        kind: what isinstance takes: a type, a union or a tuple of types.
        expected: text that says what is expected.
        advice: text that says how to mend it; empty: none.
    """
    if not isinstance(value, kind):
        shown_value = f" {value!r}" if isinstance(value, str | bool | numbers.Number) else ""
        advice = f"; {advice}" if advice else ""
        raise UserError(f"{name}: expected {expected}, received {type(value).__name__}{shown_value}{advice}")


def check_bool(name: str, value: object) -> None:
    """Raises UserError if `value` is neither True nor False: a text such as "no" would count as true in Python."""
    check_kind(name, value, bool, "True or False")


def check_integer(name: str, value: Any, minimum: int | None = None) -> int:
    """`value` as an int.

    Raises:
        UserError: another type (bool included), or a value below `minimum`, if it is given.
    """
    least = "" if minimum is None else f" of at least {minimum}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise UserError(f"{name}: expected an int{least}, received {type(value).__name__} {value!r}")
    if minimum is not None and value < minimum:
        raise UserError(f"{name}: expected at least {minimum}, received {value}")
    return int(value)


def class_number(names: Sequence[str], given: Any, option: str = "class_name") -> int:
    """The number of a class that is given by its name or its number.

    Args:
        names: of the model's classes, in the order of their numbers; empty: they are not known, so that numbers alone are taken.
        given: a name, a number, or the text of one; a name that is a number is a name.
        option: what is given, for messages.

    Raises:
        UserError: no such class.
    """
    text = str(given)
    if text in names:
        return list(names).index(text)
    if text.isascii() and text.isdecimal() and (not names or int(text) < len(names)):
        return int(text)
    shown_names = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    expected = f"one of {shown_names}, or a number from 0 to {len(names) - 1}" if names else "the number of a class"
    raise UserError(f"{option}: expected {expected}, received {given!r}")


def check_images(
    images: Any, name: str, shape: Sequence[int | None] = (None, None, None), least: int = 1, where: str = ""
) -> np.ndarray:
    """8-bit images as a NumPy array.

    Args:
        images: uint8 [N, H, W, C].
        name: their name in a message.
        shape: (H, W, C); None in it: any size.
        least: smallest N.
        where: how a message begins, such as "MS-SSIM: ".

    Raises:
        UserError: another type (floats in [0, 1] are not scaled silently) or shape, or too few images.
    """
    array = as_array(images, f"{where}{name}", f"uint8 {dims('N', *shape)} in 0..255")
    wrong = array.ndim != 4 or any(want not in (None, have) for want, have in zip(shape, array.shape[1:]))
    if array.dtype != np.uint8 or wrong or len(array) < least:
        raise UserError(
            f"{where}{name}: expected uint8 {dims('N', *shape)} in 0..255{f', N of {least} or more' if least > 1 else ''}, "
            f"received {shown(array)}; {image_advice(array, name, shape, least)}"
        )
    return array


def as_array(value: Any, name: str, expected: str) -> np.ndarray:
    """`value` as a NumPy array of numbers.

    Raises:
        UserError: it cannot be one: a ragged list, a data set, a string, None.
    """
    kinds = (list, tuple, numbers.Number, np.ndarray, np.generic)
    array: np.ndarray | None
    if isinstance(value, kinds) or hasattr(value, "__array__"):
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, NotImplementedError):
            array = None
        if array is not None and array.dtype.kind in "biuf":
            return array
        kind = type(value).__name__ if array is None else f"{array.dtype} {dims(*array.shape)}"
    else:
        kind = type(value).__name__
    raise UserError(f"{name}: expected {expected}, received {kind}, which is not an array of numbers; pass a NumPy array")


def dims(*sizes: int | str | None) -> str:
    """The text '[N, 32, 32, 3]' of a shape: ints or letters; None is written N, H, W or C by its position, as in images."""
    letters = "NHWC"
    return f"[{', '.join(letters[place] if size is None else str(size) for place, size in enumerate(sizes))}]"


def shown(array: np.ndarray) -> str:
    """The text 'float32 [16, 32, 32, 3] with values 0 to 1' of an array of numbers."""
    return f"{array.dtype} {dims(*array.shape)}{_range(array)}"


def _range(array):
    if not array.size:
        return ""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return " with NaN or infinity"
    low, high = array.min(), array.max()
    return f" with values {low:.4g} to {high:.4g}" if array.dtype.kind == "f" else f" with values {low} to {high}"


def image_advice(array: np.ndarray, name: str, shape: Sequence[int | None] = (None, None, None), least: int = 1) -> str:
    """How to turn an array (of any type and shape) into the expected uint8 [N, *shape] with N of `least` or more."""
    if array.dtype != np.uint8:
        return _type_advice(array, name)
    if array.ndim == 4 and len(array) < least:
        return "pass at least one image" if least == 1 else "pass more images"
    height, width, channels = shape

    def fits(sizes, wanted):
        return len(sizes) == len(wanted) and all(want in (None, have) for want, have in zip(wanted, sizes))

    if None not in shape and fits(array.shape, shape):
        return f"{name}[None] is a batch of one image"
    if array.ndim == 3 and channels in (None, 1) and fits(array.shape[1:], (height, width)):
        return f"{name}[..., None] gives grey images their channel, {name}[None] makes a batch of one image"
    if array.ndim == 4 and channels is not None and fits(array.shape[1:], (channels, height, width)):
        return f"{name}.transpose(0, 2, 3, 1) puts the channels last"
    if array.ndim == 2 and None not in shape and array.shape[1] == math.prod(size for size in shape if size):
        return f"{name}.reshape(-1, {height}, {width}, {channels}) if that is their order"
    return "bring them to this shape" + (", as the images that the model was trained on" if None not in shape else "")


def _type_advice(array, name):
    whole = f"8-bit images are whole numbers from 0 to 255; convert {name} to uint8 by what its values mean"
    if not array.size or not np.isfinite(array).all():
        return whole
    low, high = array.min(), array.max()
    if low < (-1 if array.dtype.kind == "f" else 0) or high > 255:
        return whole
    if array.dtype.kind == "b":
        return f'(255 * {name}).astype("uint8") makes black and white of it'
    if array.dtype.kind in "iu":
        return f'{name}.astype("uint8") if these are 8-bit values'
    if low >= 0 and high <= 1:
        return f'np.rint(255 * {name}).astype("uint8") if these are fractions of 255'
    if high <= 1:
        return f'np.rint(127.5 * ({name} + 1)).astype("uint8") if black is -1 and white 1'
    return whole if low < 0 else f'np.rint({name}).astype("uint8") if these are 8-bit values'
