"""history.jsonl: what changed when a run was resumed, and where its first weights are from."""

from __future__ import annotations

import time

from tfcq.machine import json_lines
from tfcq.machine.paths import AnyPath


def record_changes(folder: AnyPath, step: int, changes: dict[str, list]) -> None:
    """Appends a row of changes {name: [before, after]}, unless the last row is the same."""
    path, row = folder / "history.jsonl", {"step": step, "changes": changes}
    rows = json_lines.read(path)
    # The last row is the same if a training was killed between writing this file and config.json.
    if not rows or {name: rows[-1].get(name) for name in row} != row:
        json_lines.append(path, {"time": now(), **row})


def now() -> str:
    """The time in UTC, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
