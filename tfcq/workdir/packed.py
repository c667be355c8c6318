"""A packed model: a run's folder that holds the weights that answers need, and no more, for others (`tfcq.releasing`).

release.json names the checkpoint and every file with its size and SHA-256. The checkpoint has the running mean of the weights
as the weights, and neither optimizers nor networks that only training uses, such as a discriminator.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import TYPE_CHECKING, Any

from tfcq.errors import UserError
from tfcq.machine.paths import as_path

if TYPE_CHECKING:
    from tfcq.models.base import GenerativeModel

FILE = "release.json"
FORMAT = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")


@dataclasses.dataclass(frozen=True)
class Packed:
    """What release.json says.

    Attributes:
        name: of the model, letters, digits, `_`, `.` and `-`.
        step: the training steps that it took.
        checkpoint: "best" or "last", which of the run's it is.
        chosen_by: by which number of what value it is the best, in words; "": it is not, or this is unknown.
        parts: the model's attributes whose variables are kept.
        left_out: those that only training uses.
        files: {path below the folder: {"bytes": size, "sha256": hexadecimal}} of every other file.
        format: of this file, `FORMAT`.
    """

    name: str
    step: int
    checkpoint: str
    chosen_by: str
    parts: list[str]
    left_out: list[str]
    files: dict[str, dict[str, Any]]
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of release.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: object) -> Packed:
        """Inverse of `to_json`.

        Args:
            text: the content of release.json.
            where: its place, for messages.

        Raises:
            UserError: another format, or fields that a packed model does not have.
        """
        try:
            values = json.loads(text)
            version = values.get("format")
            if isinstance(version, int) and version > FORMAT:
                raise UserError(f"{where}: expected format {FORMAT}, received {version}; a newer tfcq reads it")
            found = cls(**values)
            kinds = [type(getattr(found, field.name)) for field in dataclasses.fields(cls)]
            if kinds != [str, int, str, str, list, list, dict, int] or not _NAME.fullmatch(found.name):
                raise ValueError("fields of other types")
            names = (*found.parts, *found.left_out)
            if found.checkpoint not in ("best", "last") or not all(isinstance(name, str) for name in names):
                raise ValueError("fields of other values")
            for path, one in found.files.items():
                if not _PATH.fullmatch(path) or path == FILE or set(one) != {"bytes", "sha256"}:
                    raise ValueError(f"a file {path!r}")
                if type(one["bytes"]) is not int or one["bytes"] < 0 or not re.fullmatch("[0-9a-f]{64}", one["sha256"]):
                    raise ValueError(f"the size or digest of {path}")
            return found
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{where}: expected the description of a packed model, received something else: {reason}") from error


def read(workdir: str | os.PathLike) -> Packed | None:
    """What a folder's release.json says; None if it has none. UserError if it cannot be read."""
    path = as_path(workdir) / FILE
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return Packed.from_json(text, path)


def refuse_training(workdir: str | os.PathLike) -> None:
    """Raises UserError if a folder holds a packed model."""
    if read(workdir) is not None:
        raise UserError(
            f"workdir {workdir}: holds a packed model, which has no optimizers to train on with; expected another --workdir, "
            f"which begins with its weights by --init_from={workdir}"
        )


def restore(model: GenerativeModel, workdir: str | os.PathLike, packed: Packed) -> None:
    """Gives a model the weights of a packed one; those of parts that only training uses stay as they are.

    Raises:
        UserError: another version's networks, or a file that cannot be read.
    """
    from tfcq.engine import checkpoints

    known = [*packed.parts, *packed.left_out]
    lacking = [name for name in known if not hasattr(model, name)]
    there = {key for name in known if name not in lacking for key in keys_of(getattr(model, name))}
    if lacking or keys_of(model) - there:
        named = ", ".join(lacking) or "variables that it does not name"
        raise UserError(f"workdir {workdir}: the packed model has other networks than {model.name} of this version: {named}")
    checkpoints.restore_parts({name: getattr(model, name) for name in packed.parts}, workdir, packed.step)


def variables_of(part: Any) -> list[Any]:
    """The variables of a model or of one of its attributes: a layer, a module, or a variable."""
    return list(part.variables) if hasattr(part, "variables") else [part]


def keys_of(part: Any) -> set[Any]:
    """What tells the variables of a part from all others."""
    import keras

    return {(one.value if isinstance(one, keras.Variable) else one).ref() for one in variables_of(part)}
