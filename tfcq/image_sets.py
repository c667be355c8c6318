"""`evaluate_images`: generated images of any model beside real ones, without a run."""

from __future__ import annotations

import os
from typing import Any

from tfcq.machine import settings


def evaluate_images(
    generated: str | os.PathLike,
    reference: str | os.PathLike,
    output: str | os.PathLike,
    metrics: str | list[str] | None = None,
    report: bool = True,
    **options: Any,
) -> dict:
    """Measures generated images beside real ones, without a model, and records the numbers.

    Args:
        generated, reference: folder:DIR, list:FILE, npz:FILE, idx:DIR or the name of a data set; a folder alone is folder:DIR. A
            reference with splits, or with split=..., is compared with by its split, as in a run; another one as a whole.
        output: folder for metrics.json, metrics.jsonl and the report.
        metrics: names, in a list or separated by commas, or "all"; None: the Frechet distance.
        report: whether report.md and its figures are written.
        **options: image_size (default: that of the generated images), center_crop, resize and color, by which images of both
            are prepared, and those options of `EvaluationConfig` that need no model.

    Returns:
        The recorded row: a dict of plain values.

    Raises:
        UserError: an unknown metric or option, images that cannot be read or compared, or a folder that cannot be written.
    """
    settings.import_tensorflow()
    from tfcq.evaluation.image_sets import evaluate_images

    return evaluate_images(generated, reference, output, metrics, report, **options)
