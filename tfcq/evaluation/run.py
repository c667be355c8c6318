"""`tfcq.evaluate`: measures the model of a workdir and records each number with its protocol."""

import sys
import time

import tensorflow as tf

from tfcq import data
from tfcq import workdir as workdirs
from tfcq.config import suggestion
from tfcq.errors import UserError
from tfcq.evaluation.likelihood import LikelihoodEvaluator

METRICS = ("elbo", "bits_per_dim")


def evaluate(
    workdir,
    metrics=METRICS,
    split="test",
    num_images=0,
    num_importance_samples=50,
    seed=0,
    batch_size=250,
    checkpoint="best",
):
    """Measures, prints, and records in metrics.json and metrics.jsonl.

    Args:
        workdir: folder of a run.
        metrics: names out of `METRICS`: "elbo" (one draw) and "bits_per_dim" (importance-weighted with K draws); both in
            bits/dim and nats, with the standard error over images.
        split: "train", "validation" or "test".
        num_images: the first images of the split; 0: all.
        num_importance_samples: K.
        seed: of the noise.
        batch_size: images at a time.
        checkpoint: "best" or "last".

    Returns:
        The recorded row: a dict of plain values.

    Raises:
        UserError: an unknown metric, or one that the model has not.
    """
    for name in metrics:
        if name not in METRICS:
            raise UserError(
                f"metrics: expected some of {', '.join(METRICS)}, received {name!r}{suggestion(name, METRICS)}"
            )
    model = workdirs.load(workdir, checkpoint)
    if "likelihood" not in model.abilities:
        raise model.cannot("likelihood")
    dataset = data.load(model.config_of_run.data)
    total = min(num_images or dataset.num_images(split), dataset.num_images(split))
    evaluator = LikelihoodEvaluator(model)
    row = {"step": int(model.step), "checkpoint": checkpoint, "split": split, "seed": seed}
    for name in metrics:
        start = time.monotonic()
        batches = dataset.eval_batches(split, batch_size, total)
        progress = Progress(name, total)
        try:
            if name == "elbo":
                values, protocol = evaluator.elbo(batches, seed, progress), {}
            else:
                values = evaluator.log_prob(batches, num_importance_samples, seed, progress)
                protocol = {"num_importance_samples": num_importance_samples}
        except tf.errors.OpError as error:
            raise data.user_error(error) or error from error
        row[name] = evaluator.summary(values) | protocol | {"seconds": round(time.monotonic() - start, 1)}
        facts = row[name]
        error = facts["bits_per_dim_standard_error"]
        print(
            f"{name}: {facts['bits_per_dim']:.4f}"
            + ("" if error is None else f" +- {error:.4f}")
            + f" bits/dim ({split}, {total} images"
            + (f", K={num_importance_samples}" if protocol else ", ELBO")
            + ")",
            flush=True,
        )
    return workdirs.record_metrics(workdir, row)


class Progress:
    """Callable with the number of images done: a line that is rewritten on a terminal, one every 30 s elsewhere."""

    def __init__(self, name, total):
        self._name, self._total = name, total
        self._start = self._printed = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def __call__(self, done):
        now = time.monotonic()
        if now - self._printed < (0.5 if self._terminal else 30.0):
            return
        self._printed = now
        line = f"{self._name}: {done}/{self._total} images, {done / (now - self._start):.1f} images/s"
        print(f"\r{line:<80}" if self._terminal else line, end="\r" if self._terminal else "\n", flush=True)
