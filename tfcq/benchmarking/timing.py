"""Times of calls, and the JSON lines that report them."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

WARM_UP = 3  # untimed calls


def measure(call: Callable[[], Any], warm_up: int = WARM_UP, calls: int = 15) -> list[float]:
    """Seconds of each of `calls` calls, after `warm_up` untimed ones."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


def row(workload: str, seconds: Sequence[float], **facts: Any) -> dict[str, Any]:
    """The line about a workload.

    Args:
        workload: its name.
        seconds: of each call.
        **facts: further values of the line; `num_images` and `gflop` of a call are divided by the median of its seconds.
    """
    median = statistics.median(seconds)
    found: dict[str, Any] = {
        "workload": workload,
        "median_ms": round(1e3 * median, 2),
        "min_ms": round(1e3 * min(seconds), 2),
        "max_ms": round(1e3 * max(seconds), 2),
        "calls": len(seconds),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if "num_images" in facts:
        found["images_per_second"] = float(f"{facts.pop('num_images') / median:.4g}")
    if facts.get("gflop"):
        found["gflop_per_second"] = round(facts["gflop"] / median, 1)
        facts["gflop"] = round(facts["gflop"], 3)
    return found | facts


def report(line: dict[str, Any]) -> dict[str, Any]:
    """Prints a line as JSON, and returns it."""
    print(json.dumps(line), flush=True)
    return line
