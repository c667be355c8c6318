"""Presets: the flagfiles of `configs/` by their names, in a checkout as in an installed package."""

import pathlib

from tfcq.config.fields import suggestion
from tfcq.errors import UserError

_PACKAGE = pathlib.Path(__file__).parents[1]


def folder() -> pathlib.Path:
    """Where the presets are: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def names(kind: str = "") -> list[str]:
    """The names of all presets of a kind, sorted: "" are those of runs, "evaluation" those of `tfcq.evaluate`."""
    return sorted(path.stem for path in (folder() / kind).glob("*.cfg"))


def path_of(name: str, kind: str = "") -> str:
    """The flagfile that a preset is.

    Raises:
        UserError: there is no preset of that name.
    """
    known = names(kind)
    if name not in known:
        text = f"expected one of {', '.join(known)}" if known else f"there are none in {folder() / kind}"
        hint = " (a file of your own is --flagfile=FILE)" if "/" in name or name.endswith(".cfg") else suggestion(name, known)
        raise UserError(f"--preset={name}: no such preset{hint}; {text}")
    return str(folder() / kind / f"{name}.cfg")
