"""What happens between steps: guards, progress, scalars, evaluation, checkpoints. Keras callbacks that count steps.

`fit` runs as one epoch of all remaining steps, so each callback looks at the number of the step that just ended.
Their order matters: the guard before anything that writes, evaluation before the checkpoint of the same step.
"""

import time

import keras
import numpy as np
import tensorflow as tf

from tfcq import images as units
from tfcq import workdir as workdirs
from tfcq.config.evaluation import EvaluationConfig
from tfcq.errors import TrainingDiverged, TrainingInterrupted
from tfcq.evaluation.likelihood import LatentLikelihoodEvaluator, LikelihoodEvaluator
from tfcq.evaluation.pictures import Pictures
from tfcq.machine.interruption import Stopped
from tfcq.machine.terminal import ProgressLine, clear, say

_PICTURE_SEED = 0  # the same for every evaluation, so that grids of one run can be compared


class StepCallback(keras.callbacks.Callback):
    """Calls `on_step(step, logs)` with the number of the step that ended, counted over all runs of the workdir."""

    def on_train_begin(self, logs=None):
        self.step = self.model.steps_taken

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.on_step(self.step, logs)


class FiniteGuard(StepCallback):
    """Stops at the first loss or gradient that is not finite, before anything is saved."""

    def on_step(self, step, logs):
        for name, value in logs.items():
            player, _, term = name.rpartition("/")
            if term == "finite" and value < 1.0:
                terms = {key: float(other) for key, other in logs.items() if not np.isfinite(other)}
                raise TrainingDiverged(
                    f"player {player} at step {step} (seed {self.model.seed}): loss or gradient is not finite "
                    f"({', '.join(f'{key}={other}' for key, other in terms.items()) or 'loss scale exhausted'}); the last "
                    "checkpoint is untouched; a lower learning rate, --clip_norm or --precision=float32 may help"
                )


class FirstStep(StepCallback):
    """Ends the time in which a signal stops at once, since nothing can be saved: a first step may take minutes of tracing.

    Args:
        signals: `tfcq.machine.interruption.Signals`.
    """

    def __init__(self, signals):
        super().__init__()
        self._signals = signals

    def on_step(self, step, logs):
        self._signals.wait()


class StepProgress(StepCallback):
    """A `ProgressLine` with step, images/s, time left and some of the logged terms.

    Args:
        total_steps: of the run.
        images_per_step: that a step reads.
        shown: {name of a logged term: what it is called in the line}.
    """

    def __init__(self, total_steps, images_per_step, shown):
        super().__init__()
        self._total, self._images, self._shown = total_steps, images_per_step, shown

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._first, self._start, self._line = self.step, time.monotonic(), ProgressLine()

    def on_step(self, step, logs):
        if step == self._first + 1:  # it traces and compiles, and says nothing about the speed
            self._start, self._line = time.monotonic(), ProgressLine()
            return
        if not self._line.due() and step != self._total:
            return
        rate = (step - self._first - 1) * self._images / max(time.monotonic() - self._start, 1e-9)
        left = (self._total - step) * self._images / rate if rate else float("nan")
        terms = [f"{label} {logs[name]:.4g}" for name, label in self._shown.items() if name in logs]
        parts = [f"step {step}/{self._total}", f"{rate:.1f} images/s", f"{left / 60:.1f} min left", *terms]
        self._line.show(parts, last=step == self._total)


class Balance(StepCallback):
    """Prints the model's warnings about its players' balance, judged every `every` steps, when they begin, change or end."""

    def __init__(self, every):
        super().__init__()
        self._every, self._told = every, None
        self._sums, self._counts = {}, {}

    def on_step(self, step, logs):
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if step % self._every:
            return
        warning = self.model.balance_warning({name: total / self._counts[name] for name, total in self._sums.items()})
        self._sums, self._counts = {}, {}
        kind = warning and warning.rpartition(":")[2]  # the numbers before it are never the same
        if warning and kind != self._told:
            say(f"step {step}: warning: {warning}")
        elif self._told and not warning:
            say(f"step {step}: the players are in balance again")
        self._told = kind


class Scalars(StepCallback):
    """Means of every logged term over `every` steps, learning rates and images/s to TensorBoard.

    What a validation measures too has the same name there, one unit and one estimator: see `Terms`.
    """

    def __init__(self, writer, every, images_per_step):
        super().__init__()
        self._writer, self._every, self._images = writer, every, images_per_step
        self._values, self._count = {}, 0

    def on_step(self, step, logs):
        now = time.monotonic()
        if not self._count:
            self._start = now
        for name, value in logs.items():  # not every stage of training has every term
            self._values.setdefault(name, []).append(value)
        self._count += 1
        if step % self._every:
            return
        with self._writer.as_default(step):
            for name, values in self._values.items():
                if not name.endswith("/finite"):
                    tf.summary.scalar(name, sum(values) / len(values))
            for name, optimizer in self.model.player_optimizers.items():
                tf.summary.scalar(f"{name}/learning_rate", float(tf.convert_to_tensor(optimizer.learning_rate)))
            if self._count > 1:
                tf.summary.scalar("images_per_second", (self._count - 1) * self._images / (now - self._start))
        self._writer.flush()
        self._values, self._count = {}, 0


class Evaluation(StepCallback):
    """Every `every` steps, at the start and at the end: likelihood on the validation split, grids, a row of metrics.

    What it needs is made here, so that what is missing, such as weights of features, is told before training begins.

    Args:
        workdir: folder of the run.
        model: the `GenerativeModel` that is trained.
        dataset: `ImageDataset`.
        training: `TrainingConfig`.
        checkpoints: keeps the best by validation bits/dim (models with a likelihood of images; of the last stage).
        signals: `tfcq.machine.interruption.Signals`; one ends an evaluation at once, which is made when the run is resumed.
    """

    writer = None
    """Summary writer of tensorboard/validation, to be set before training begins."""

    row_at_start = None
    """The row of metrics of the step from which training goes on, to be set; None: it is not evaluated."""

    guard = None
    """`LikelihoodGuard` that judges the likelihoods, to be set before training begins."""

    def __init__(self, workdir, model, dataset, training, checkpoints, signals):
        super().__init__()
        self.set_model(model)
        self._workdir, self._dataset, self._training = workdir, dataset, training
        self._checkpoints, self._signals = checkpoints, signals
        available = self._dataset.num_images("validation")
        self._num_images = min(self._training.validation_images or available, available)
        self._likelihood = LikelihoodEvaluator(self.model) if "likelihood" in self.model.abilities else None
        latents = "latent_likelihood" in self.model.abilities
        self._latent_likelihood = LatentLikelihoodEvaluator(self.model) if latents else None
        self._pictures = Pictures(self.model)
        self._distributions = self._distribution_evaluator() if self._training.eval_metrics else None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.row_at_start:
            self._judge(self.step, self.row_at_start)
            self._keep_if_best(self.step, self.row_at_start)  # it may have been measured after the checkpoint was written
        elif self.step == 0 or self._is_due(self.step):
            self._evaluate(self.step)

    def on_step(self, step, logs):
        if not self._is_due(step):
            return
        try:
            self._evaluate(step)
        except Stopped:
            say(f"step {step}: the evaluation was interrupted; it is made when the run is resumed")

    def _is_due(self, step):
        return step % self._training.evaluate_every == 0 or step == self._training.train_steps

    def _distribution_evaluator(self):
        """Compares samples with the validation split; loaded where it is asked for, as it imports half of SciPy."""
        from tfcq import features
        from tfcq.evaluation.distributions import DistributionEvaluator

        training, strategy = self._training, self.model.distribute_strategy
        protocol = EvaluationConfig(
            split="validation",
            num_samples=training.eval_samples,
            seed=_PICTURE_SEED,
            features=training.eval_features,
            batch_size=training.batch_size,
        )
        with strategy.scope():
            extractor = features.load(training.eval_features)
        return DistributionEvaluator(self.model, self._dataset, extractor, protocol, strategy)

    def _keep_if_best(self, step, row):
        """Whether the model is the best so far, which is kept."""
        # What an earlier stage reaches says nothing of a model whose last stage is not trained.
        in_last_stage = step > 0 and self.model.stage_at(step - 1) == len(self.model.stage_starts) - 1
        return bool(self._likelihood) and in_last_stage and self._checkpoints.save_if_best(row["elbo"]["bits_per_dim"])

    def _judge(self, step, row):
        if self._likelihood:
            self.guard.judge_validation(step, row["elbo"]["bits_per_dim"])

    def _evaluate(self, step):
        self.model.settle()
        with self.model.served_weights(), self._signals.at_once():
            row = self._measure(step)
        workdirs.record_metrics(self._workdir, row)
        if self._latent_likelihood:
            told = ", ".join(f"{name} {row[name]['value']:.4g}" for name in LatentLikelihoodEvaluator.meanings)
            say(f"step {step}: validation {told} ({self._num_images} images)")
        if not self._likelihood:
            say(f"step {step}: grids in {self._workdir}/samples")
            return
        best = self._keep_if_best(step, row)
        say(
            f"step {step}: validation {row['elbo']['bits_per_dim']:.4f} bits/dim (ELBO, {self._num_images} images)"
            + (", best so far" if best else "")
        )
        self._judge(step, row)

    def _measure(self, step):
        """The row of metrics of what would be served now; writes it to TensorBoard, with the grids."""
        row = {"step": step, "split": "validation", "seed": self._training.seed}
        with self.writer.as_default(step):
            if self._likelihood:
                batches = self._dataset.eval_batches("validation", self._training.batch_size, self._num_images)
                terms = self._likelihood.elbo_terms(batches, self._training.seed)
                summary = self._likelihood.summary(terms.pop("elbo"))
                row["elbo"] = summary | self._likelihood.parts(terms)
                means = {"elbo": summary["nats"]} | row["elbo"]["terms"]
                for name, value in self.model.bound_measures(means).items():
                    tf.summary.scalar(name, value)
            if self._latent_likelihood:
                batches = self._dataset.eval_batches("validation", self._training.batch_size, self._num_images)
                row |= self._latent_likelihood.entries(batches, self._training.seed)
                for name in LatentLikelihoodEvaluator.meanings:
                    tf.summary.scalar(name, row[name]["value"])
            if self._distributions and step:
                clear()
                entries, _ = self._distributions.measure(self._training.eval_metrics.split(","))
                row |= entries
                for name, entry in entries.items():
                    tf.summary.scalar(name, entry["value"])
            for name, picture in self._grids().items():
                tf.summary.image(name, picture[None])
                units.write_png(f"{self._workdir}/samples/{name}-{step:08d}.png", picture)
        self.writer.flush()
        return row

    def _grids(self):
        count = self._training.grid_images
        grids = {"samples": self._pictures.sample_grid(count, _PICTURE_SEED)}
        images = self._dataset.images("validation", range(min(count // 2 or 1, self._dataset.num_images("validation"))))
        for ability, name in (
            ("reconstruct", "reconstructions"),
            ("generative_reconstruct", "generative_reconstructions"),
        ):
            if ability in self.model.abilities:
                grids[name] = self._pictures.reconstruction_grid(images, _PICTURE_SEED, ability)
        if "super_resolve" in self.model.abilities:
            grids["super_resolutions"] = self._pictures.super_resolution_grid(images[:8], seed=_PICTURE_SEED)
        return grids


class Saver(StepCallback):
    """Checkpoints every `every` steps and at the end; where a signal has come, saves and raises TrainingInterrupted."""

    def __init__(self, checkpoints, every, total_steps, signals):
        super().__init__()
        self._checkpoints, self._every, self._total, self._signals = checkpoints, every, total_steps, signals

    def on_step(self, step, logs):
        received = self._signals.received
        if received:
            self._checkpoints.save()  # at once: who sent it may not wait until the model has settled
            if self.model.settle():
                self._checkpoints.save()
        elif step % self._every == 0 or step == self._total:
            self.model.settle()
            self._checkpoints.save()
        if received:
            raise TrainingInterrupted(received, step)
