"""Evaluation between steps: likelihoods on the validation split, samples against the split that is asked for."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfcq import images as units
from tfcq import workdir as workdirs
from tfcq.config.evaluation import EvaluationConfig
from tfcq.engine.best import ELBO
from tfcq.evaluation.energy import NUMBER, EnergyEvaluator
from tfcq.evaluation.likelihood import LatentLikelihoodEvaluator, LikelihoodEvaluator
from tfcq.evaluation.pictures import Pictures
from tfcq.grids import grid
from tfcq.machine.interruption import Stopped
from tfcq.machine.terminal import clear, say
from tfcq.metrics import registry
from tfcq.training.best import BestNumber
from tfcq.training.callbacks.step import StepCallback
from tfcq.training.early_stopping import EarlyStopping, StoppedEarly

if TYPE_CHECKING:
    from tfcq.config import TrainingConfig
    from tfcq.data import ImageDataset
    from tfcq.engine.checkpoints import Checkpoints
    from tfcq.engine.workers import Workers
    from tfcq.machine import paths
    from tfcq.machine.interruption import Signals
    from tfcq.models.base import GenerativeModel
    from tfcq.training.likelihood_guard import LikelihoodGuard
    from tfcq.training.loggers import Loggers

ENOUGH = 2048
"""The number of images, generated and real, below which the bias of a Frechet distance is warned of."""

_ENERGIES = 1000  # validation images at most whose energies are compared with those of as many samples
_PICTURE_SEED = 0  # the same for every evaluation, so that grids of one run can be compared


def is_due(training: TrainingConfig, step: int) -> bool:
    """Whether the model is evaluated after `step` steps."""
    return step % training.evaluate_every == 0 or step == training.train_steps


def grids_are_kept(training: TrainingConfig, step: int) -> bool:
    """Whether the evaluation of `step` writes grids: `keep_grids` of a training do at most, the first and the last among them."""
    total = math.ceil(training.train_steps / training.evaluate_every)
    stride = math.ceil(total / (training.keep_grids - 1))
    return step == training.train_steps or step // training.evaluate_every % stride == 0


class Meeting(StepCallback):
    """Where the chief evaluates the model, all workers prepare theirs as it does, and wait for it.

    An evaluation that fails, as on a full disk, ends all of them.
    """

    evaluation: Evaluation | None = None
    """The chief's evaluations, to be set there before training begins."""

    def __init__(self, training: TrainingConfig, workers: Workers):
        super().__init__()
        self._training, self._workers = training, workers

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Waits for the evaluation of the first step, which may be due; StoppedEarly as that of `Evaluation`."""
        super().on_train_begin(logs)

        def evaluate(evaluation):
            with contextlib.suppress(StoppedEarly):  # raised below, on every worker
                evaluation.on_train_begin(logs)

        self._meet(self.step, evaluate)
        if self.model.stop_training:
            raise StoppedEarly

    def on_step(self, step: int, logs: dict) -> None:
        """Waits, where an evaluation is due."""
        if is_due(self._training, step):
            self._meet(step, lambda evaluation: evaluation.on_step(step, logs))

    def _meet(self, step, evaluate):
        if is_due(self._training, step):
            self.model.settle()
        self._workers.each(lambda: evaluate(self.evaluation) if self.evaluation else None)
        if self._training.early_stopping:
            self.model.stop_training = bool(self._workers.share("ends" if self.model.stop_training else "")[0])
        self._workers.wait()


class Evaluation(StepCallback):
    """Evaluates every `evaluate_every` steps, at the start and at the end: validation likelihood, grids, a row of metrics.

    Extractors are loaded here, so that missing files, such as weights of features, are reported before training begins; and
    so is a model that cannot be measured by best_metric.

    Args:
        workdir: folder of the run.
        model: the model that is trained.
        dataset: the images.
        training: options of the training.
        checkpoints: keeps the best by best_metric, in the last stage.
        signals: a signal ends an evaluation at once; the evaluation is repeated when the run is resumed.
    """

    loggers: Loggers
    """They take the numbers and grids; to be set before training begins."""

    row_at_start: dict | None = None
    """The row of metrics of the step from which training resumes, to be set; None: the step is not evaluated yet."""

    guard: LikelihoodGuard
    """Judges the likelihoods; to be set before training begins."""

    stopping: EarlyStopping
    """Has heard the rows up to the step from which training resumes; to be set before training begins."""

    def __init__(
        self,
        workdir: paths.AnyPath,
        model: GenerativeModel,
        dataset: ImageDataset,
        training: TrainingConfig,
        checkpoints: Checkpoints,
        signals: Signals,
    ):
        super().__init__()
        self.set_model(model)
        self._workdir, self._dataset, self._training = workdir, dataset, training
        self._checkpoints, self._signals = checkpoints, signals
        available = self._dataset.num_images("validation")
        self._num_images = min(self._training.validation_images or available, available)
        likelihoods = self.model.abilities if available else ()  # without such images (num_validation=none) there are none
        self._likelihood = LikelihoodEvaluator(self.model) if "likelihood" in likelihoods else None
        latents = "latent_likelihood" in likelihoods
        self._latent_likelihood = LatentLikelihoodEvaluator(self.model) if latents else None
        self._energy = EnergyEvaluator(self.model) if "energy" in likelihoods else None
        self._pictures = Pictures(self.model)
        self._best = BestNumber(training.best_metric)
        self._best.check(model)
        self._of_samples = [*filter(None, training.eval_metrics.split(","))]
        self._distributions = self._distribution_evaluator() if self._of_samples or self._best.of_samples else None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Evaluates the first step, if that is due, or judges the row that it has already.

        Raises:
            StoppedEarly: by that evaluation, the number stands still.
        """
        super().on_train_begin(logs)
        if self.row_at_start:
            self._judge(self.step, self.row_at_start)
            self._keep_if_best(self.step, self.row_at_start)  # it may have been measured after the checkpoint was written
        elif is_due(self._training, self.step):
            self._evaluate(self.step)
            if self.model.stop_training:
                raise StoppedEarly

    def on_step(self, step: int, logs: dict) -> None:
        """Evaluates the model if that is due."""
        if not is_due(self._training, step):
            return
        try:
            self._evaluate(step)
        except Stopped:
            say(f"step {step}: the evaluation was interrupted; it is made when the run is resumed")

    def _distribution_evaluator(self):
        """Compares samples with images of eval_split; imported only when it is needed, as it imports much of SciPy."""
        from tfcq import features
        from tfcq.evaluation.distributions import DistributionEvaluator, check_name

        training, strategy = self._training, self.model.distribute_strategy
        if self.model.workers.count > 1:
            strategy = tf.distribute.get_strategy()  # the other workers do not evaluate
        protocol = EvaluationConfig(
            split=training.eval_split,
            num_samples=training.eval_samples,
            seed=_PICTURE_SEED,
            features=training.eval_features,
            batch_size=training.batch_size,
        )
        with strategy.scope():
            extractor = features.load(training.eval_features)
        for name in self._of_samples:
            check_name(name, extractor, self._dataset.image_shape, "eval_metrics", "eval_features")
        if self._best.of_samples:
            check_name(self._best.metric, extractor, self._dataset.image_shape, "best_metric", "eval_features")
            self._of_samples.append(self._best.metric)  # where it is there already, it is measured once
        real = min(training.eval_samples, self._dataset.num_images(protocol.split))
        own = {registry.INCEPTION_NAMES.get(name, name) for name in self._of_samples}
        if real < ENOUGH and "frechet_distance" in own:
            say(
                f"warning: frechet_distance compares {training.eval_samples:,} generated images (eval_samples) with {real:,} "
                f"{protocol.split} images: its bias falls with their number, and below {ENOUGH:,} it may exceed the differences "
                "between models"
            )
        return DistributionEvaluator(self.model, self._dataset, extractor, protocol, strategy)

    def _keep_if_best(self, step, row):
        """Saves the model if it is the best so far; returns the number by which it is, in words, else ""."""
        # The numbers of earlier stages are those of a model whose last stage is not trained.
        in_last_stage = step > 0 and self.model.stage_at(step - 1) == len(self.model.stage_starts) - 1
        found = self._best.of(row)
        if not (in_last_stage and found and self._checkpoints.save_if_best(*found)):
            return ""
        value, criterion = found
        return "best so far" if criterion == ELBO else f"best so far by {criterion.number}: {value:.5g}"

    def _judge(self, step, row):
        if self._likelihood:
            self.guard.judge_validation(step, row["elbo"]["bits_per_dim"])

    def _evaluate(self, step):
        self.model.settle()
        with self.model.served_weights(), self._signals.at_once():
            row = self._measure(step)
        workdirs.record_metrics(self._workdir, row)
        if self._latent_likelihood:
            values = ", ".join(f"{name} {row[name]['value']:.4g}" for name in LatentLikelihoodEvaluator.meanings)
            say(f"step {step}: validation {values} ({self._num_images} images)")
        best = self._keep_if_best(step, row)
        line = f"grids in {self._workdir}/samples" if grids_are_kept(self._training, step) else "evaluated"
        if self._likelihood:
            line = f"validation {row['elbo']['bits_per_dim']:.4f} bits/dim (ELBO, {self._num_images} images)"
        say(f"step {step}: {line}" + (f", {best}" if best else ""))
        self._judge(step, row)
        self.stopping.hear(row)
        if self.stopping.reason and step < self._training.train_steps:
            say(f"step {step}: {self.stopping.reason}")
            self.model.stop_training = True  # Keras ends its loop after the step

    def _measure(self, step):
        """The row of metrics of the model that would be served now; logs it, with the grids."""
        split = "validation" if self._num_images else self._training.eval_split  # of what does not name its own
        row: dict[str, Any] = {"step": step, "split": split, "seed": self._training.seed}
        scalars: dict[str, float] = {}
        if self._likelihood:
            batches = self._dataset.eval_batches("validation", self._training.batch_size, self._num_images)
            terms = self._likelihood.elbo_terms(batches, self._training.seed)
            summary = self._likelihood.summary(terms.pop("elbo"))
            row["elbo"] = summary | self._likelihood.parts(terms)
            means = {"elbo": summary["nats"]} | row["elbo"]["terms"]
            scalars |= self.model.bound_measures(means)
        if self._latent_likelihood:
            batches = self._dataset.eval_batches("validation", self._training.batch_size, self._num_images)
            row |= self._latent_likelihood.entries(batches, self._training.seed)
            scalars |= {name: row[name]["value"] for name in LatentLikelihoodEvaluator.meanings}
        if self._energy and step:
            batches = self._dataset.eval_batches("validation", self._training.batch_size, min(self._num_images, _ENERGIES))
            row[NUMBER] = self._energy.entry(batches, self._training.seed) | {"split": "validation"}
            scalars[NUMBER] = row[NUMBER]["value"]
        if self._distributions and step:
            clear()
            entries, _ = self._distributions.measure(self._of_samples)
            row |= entries
            for name, entry in entries.items():
                of_split = "" if entry["split"] == "validation" else f"{entry['split']}/"
                scalars[of_split + name] = entry["value"]
        grids = self._grids() if grids_are_kept(self._training, step) else {}
        files = {name: f"{name}-{step:08d}" for name in grids}
        if not step:
            grids["real_images"] = grid(self._real_images(self._training.grid_images))
            files["real_images"] = "real_images"
        self.loggers.add("validation", step, scalars, grids)
        for name, picture in grids.items():
            units.write_png(f"{self._workdir}/samples/{files[name]}.png", picture)
        self.loggers.flush("validation")
        return row

    def _real_images(self, count):
        """The first images of `_shown_split`."""
        split = self._shown_split
        return self._dataset.images(split, range(min(count, self._dataset.num_images(split))))

    @property
    def _shown_split(self):
        """Test images are not looked at while a model is made."""
        return "validation" if self._num_images else "train"

    def _grids(self):
        count = self._training.grid_images
        grids = {"samples": self._pictures.prior_grid(count, _PICTURE_SEED)}
        images = self._real_images(count // 2 or 1)
        rebuilt = self._pictures.reconstruction_grid_of(self._dataset, self._shown_split, len(images), _PICTURE_SEED)
        grids |= {} if rebuilt is None else {"reconstructions": rebuilt}
        if "generative_reconstruct" in self.model.abilities:
            grid_of = self._pictures.reconstruction_grid(images, _PICTURE_SEED, "generative_reconstruct")
            grids["generative_reconstructions"] = grid_of
        if "super_resolve" in self.model.abilities:
            grids["super_resolutions"] = self._pictures.super_resolution_grid(images[:8], seed=_PICTURE_SEED)
        return grids
