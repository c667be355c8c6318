"""history.jsonl: what changed when a run was resumed."""

import time

from tfcq.machine import json_lines


def record_changes(folder, step, changes):
    path, row = folder / "history.jsonl", {"step": step, "changes": changes}
    rows = json_lines.read(path)
    if not rows or {name: rows[-1].get(name) for name in row} != row:  # else a kill came between this file and config.json
        json_lines.append(path, {"time": now(), **row})


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
