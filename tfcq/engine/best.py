"""By which number the best checkpoint of a run was chosen: the record beside it, checkpoints/best/record.json.

It has an entry for each checkpoint that was the best when it was saved, the last of which is there. A run that resumes from an
earlier step, or chooses by another number, so knows where it stands.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from tfcq.machine import paths
from tfcq.machine.files import write_text

FILE = "record.json"

_WAITS, _WAIT_SECONDS = 5, 0.2

VALIDATION = "validation"
"""The split by which the best checkpoint is chosen, where a criterion's protocol names no other."""


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A number by which models are compared. Values of different criteria do not compare.

    Attributes:
        number: its name in metrics.json.
        better: which values are better: "lower" or "higher".
        protocol: {name: plain value} of what else decides it, such as the number of generated images.
    """

    number: str
    better: str = "lower"
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        count = self.protocol.get("num_generated")
        return self.number + (f" ({count} images generated)" if count else "")

    def rank(self, value: float) -> float:
        """A number that is lower for better values."""
        return value if self.better == "lower" else -value


ELBO = Criterion("elbo")
"""Bits/dim of the bound, on the validation split; that of earlier versions, which kept no record."""


class Record:
    """The record in a folder of best checkpoints.

    Args:
        folder: checkpoints/best of a run, which need not exist.
    """

    def __init__(self, folder: paths.AnyPath):
        self._path = folder / FILE
        self._entries = _read(self._path)

    def resume(self, step: int) -> tuple[Criterion, float] | None:
        """Forgets what came after `step`; returns the criterion and the best value until then, None if there was none."""
        self._entries = [entry for entry in self._entries if entry["step"] <= step]
        if not self._entries:
            return None
        last = self._entries[-1]
        return _criterion(last), float(last["value"])

    def add(self, step: int, criterion: Criterion, value: float) -> None:
        """Writes that the checkpoint of `step` is the best, with that value."""
        before = [entry for entry in self._entries if entry["step"] < step]
        self._entries = [*before, {"step": step, "value": float(value), **dataclasses.asdict(criterion)}]
        write_text(self._path, json.dumps(self._entries, indent=2) + "\n")


def chosen_by(folder: paths.AnyPath, step: int) -> str:
    """By which number, of what value, the best checkpoint in `folder`, of `step`, was chosen, in words; "": unknown."""
    for entry in reversed(_read_up_to(folder / FILE, step)):
        if entry["step"] == step:
            criterion = _criterion(entry)
            unit = " bits/dim" if criterion == ELBO else ""
            split = criterion.protocol.get("split", VALIDATION)
            return f"{criterion} {entry['value']:.5g}{unit} on the {split} split ({criterion.better} is better)"
    return ""


def _read_up_to(path, step):
    """`_read`; waits a moment for the entry of `step`: a training that runs now writes it right after its checkpoint."""
    entries = _read(path)
    for _ in range(_WAITS):
        if not entries or any(entry["step"] == step for entry in entries):
            break
        time.sleep(_WAIT_SECONDS)
        entries = _read(path)
    return entries


def _criterion(entry):
    return Criterion(entry["number"], entry["better"], entry["protocol"])


def _read(path):
    """The entries; none if there is no such file, or it is not one that `Record` writes: it is known to be lost then."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [entry for entry in entries if {"step", "value", "number", "better", "protocol"} <= entry.keys()]
    except (OSError, ValueError, TypeError, AttributeError):
        return []
