"""`Run`: a workdir and what can be done with it, the one object of the Python interface.

    run = tfcq.Run("runs/mine", tfcq.Config(data=tfcq.DataConfig(dataset="digits", image_size=8), system=tfcq.GLFConfig()))
    model = run.train()
    run.evaluate(["frechet_distance"])
    run.export("exports")
    images = run.model().sample(16)

`tfcq.Run("runs/mine")` is the same run again, in another process or after an interruption. Commands (`python -m tfcq.train`, ...)
do the same from a command line, and either may go on where the other stopped.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfcq import shown_images
from tfcq import workdir as workdirs
from tfcq.checks import check_integer
from tfcq.config import Config, DataConfig, check_config
from tfcq.config.fields import suggestion
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.machine import paths, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from tfcq.config.evaluation import ImagesPlace
    from tfcq.data import ImageDataset
    from tfcq.history import History
    from tfcq.models.base import GenerativeModel
    from tfcq.training.progress import Progress


REBUILT = [name for name, one in ENDPOINTS.items() if one.inputs == ("images", "seeds") and "images" in one.outputs]
"""The endpoints that make an image of an image."""

MODES = ["prior", "stages", "variations", *REBUILT, "super_resolve", "interpolate", "interpolate_outer", "interpolate_noise"]
"""What `Run.picture` shows."""


class Run:
    """A run: a folder, its configuration, its model.

    Nothing is read or written before a method asks for it.

    Args:
        workdir: folder of the run, a str or os.PathLike; `train` creates it if it does not exist.
        config: `tfcq.Config` of a run that `train` begins or resumes; None: that of the run in the folder.

    Raises:
        UserError: arguments of another type, or a path that cannot be a folder's.
    """

    def __init__(self, workdir: str | os.PathLike, config: Config | None = None):
        self.workdir: paths.AnyPath = paths.folder(workdir, "workdir")
        if config is not None:
            check_config(config)
        self._given = config

    @property
    def config(self) -> Config:
        """The configuration: the one given, else that of the run in the folder; UserError if there is neither."""
        return self._given if self._given is not None else workdirs.read_config(self.workdir)

    def __repr__(self) -> str:
        try:
            config = self.config
        except UserError:
            there = "config.json cannot be read" if workdirs.exists(self.workdir) else "no run there"
            return f"<Run {self.workdir}: {there}>"
        steps = workdirs.saved_step(self.workdir)
        return f"<Run {self.workdir}: {config.model}, step {steps} of {config.training.train_steps}>"

    def train(
        self,
        images: Any = None,
        validation_images: Any = None,
        test_images: Any = None,
        accept_changed_data: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        classes: Any = None,
        validation_classes: Any = None,
        test_classes: Any = None,
    ) -> GenerativeModel:
        """Trains until `config.training.train_steps`, or goes on from the last checkpoint.

        Args:
            images: training images, instead of those that `config.data.dataset` names: uint8 [N, H, W, C] (or [N, H, W]), an
                array or a finite `tf.data.Dataset`. They are kept in the workdir (`images.npz`), so that the run can be resumed,
                evaluated and exported without them. A configuration without data options takes their size. None: those of the
                configuration, or, where it names none, those that were kept.
            validation_images, test_images: likewise; None: held out of `images`.
            accept_changed_data: whether the run goes on if some of its images are gone or have changed.
            on_progress: called with a `tfcq.training.progress.Progress` when progress.json is written, every few seconds.
            classes, validation_classes, test_classes: of a model of `class_conditional`, the class of each of the given images,
                ints or strs [N]; they are kept with the images. Numbers are names, too: the classes 3 and 7 are "3" and "7".

        Returns:
            The trained model, with the running mean of its weights if the run keeps one (`ema_decay`).

        Raises:
            UserError: wrong images, classes, options or folder; another training in the folder.
            TrainingDiverged: a loss or gradient stopped being finite.
            TrainingInterrupted: SIGTERM, Ctrl-C or SIGHUP; the state is saved.
        """
        settings.import_tensorflow()
        from tfcq.data.arrays import collected
        from tfcq.training.run import train

        given = collected(
            {"train": images, "validation": validation_images, "test": test_images},
            {"train": classes, "validation": validation_classes, "test": test_classes},
            self.config.class_conditional)  # fmt: skip
        config = self._config_with_kept_images(given)
        try:
            model = train(config, self.workdir, accept_changed_data, on_progress, given)
        finally:
            if self._given is not None and workdirs.exists(self.workdir):
                self._given = config  # its images lie in the folder now
        if model.averages and model.steps_taken:
            model.averages.assign_to_variables()  # what is evaluated and exported
        return model

    def evaluate(self, metrics: str | list[str] | None = None, report: bool = True, **protocol: Any) -> dict:
        """Measures the model, and records the numbers in the workdir.

        Args:
            metrics: names, in a list or separated by commas, or "all"; None: the likelihoods that the model has.
            report: whether report.md and its figures are written.
            **protocol: options of `tfcq.config.evaluation.EvaluationConfig`, such as split="validation" or num_samples=1000.

        Returns:
            The recorded row: a dict of plain values.

        Raises:
            UserError: no run, an unknown metric or option, or something that the model or the features do not have.
        """
        settings.import_tensorflow()
        from tfcq.evaluation.run import evaluate

        return evaluate(self.workdir, metrics, report, **protocol)

    def export(
        self,
        export_dir: str | os.PathLike,
        num_importance_samples: int = 10,
        checkpoint: str = "best",
        image_draw: str = "",
        allow_other_signatures: bool = False,
    ) -> paths.AnyPath:
        """Writes the model as a SavedModel, EXPORT_DIR/NAME/VERSION, and checks that it answers as the model.

        Args:
            export_dir: folder of all exported models.
            num_importance_samples: K of the endpoints likelihood and unit_gaussian_likelihood, which cost K decoder passes an
                image.
            checkpoint: "best" or "last".
            image_draw: as in `model`.
            allow_other_signatures: whether the model may follow a version that takes or answers other tensors.

        Returns:
            Folder of the version.

        Raises:
            UserError: no run, a folder that cannot be written, or a version there that has other signatures.
        """
        settings.import_tensorflow()
        from tfcq.exporting.export import export

        return export(self.workdir, export_dir, num_importance_samples, checkpoint, image_draw, allow_other_signatures)

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike, cache_dir: str | os.PathLike = "", refresh: bool = False) -> Run:
        """A run of a packed model, in the cache; `tfcq unpack` puts it elsewhere.

        Args:
            place: a name, a folder, a zip file, https://HOST/PATH.zip (with #sha256=HEX if that is known), or
                hf://OWNER/REPOSITORY, with @REVISION or without, of the Hugging Face Hub.
            cache_dir: folder of the cache; "": ~/.cache/tfcq/models.
            refresh: whether an address is asked again even if the cache has what it gave before.

        Raises:
            UserError: no such model, an address that cannot be reached, damaged files, or a cache that cannot be written.
        """
        from tfcq.releasing import fetching

        return cls(fetching.unpacked(place, cache_dir=cache_dir, refresh=refresh))

    def pack(self, output: str | os.PathLike, checkpoint: str = "best", license_file: str = "") -> pathlib.Path:
        """Writes the model as a small folder or zip file for others: weights, model card, metrics, checksums; no images.

        Args:
            output: a new folder, or a new file that ends in .zip; its name is the model's.
            checkpoint: "best" or "last".
            license_file: path of a text that becomes LICENSE; "": none.

        Returns:
            The path of `output`.

        Raises:
            UserError: no run, or an output that exists or cannot be written.
        """
        settings.import_tensorflow()
        from tfcq.releasing.packing import pack

        return pack(self.workdir, output, checkpoint, license_file)

    def model(self, checkpoint: str = "best", image_draw: str = "") -> GenerativeModel:
        """The trained model, in float32, with the running mean of the weights if the run kept one.

        Args:
            checkpoint: "best" on the validation split (the last if no best one was saved), or "last".
            image_draw: how images are drawn of a logistic mixture, "sample" or "mode"; empty: as in the run.

        Raises:
            UserError: no run, no checkpoint that can be read, or image_draw of a system that has no such option.
        """
        settings.import_tensorflow()
        return workdirs.load(self.workdir, checkpoint, image_draw)

    def picture(
        self,
        mode: str = "prior",
        num_samples: int = 64,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        spherical: bool = False,
        strength: float = 0.5,
        split: str = "test",
        checkpoint: str = "best",
        image_draw: str = "",
        place: ImagesPlace | None = None,
        other_dataset: str = "",
        other_test_split: str = "test",
        images: np.ndarray | Sequence[str | os.PathLike] | None = None,
        class_name: str | int = "",
    ) -> np.ndarray:
        """A grid of images made by the model.

        Args:
            mode: "prior": new images, of a model with classes a row each; "stages": new images, and before each what the first of
                two stages makes; "variations": the given images, their reconstructions, and `num_samples` images like each;
                "reconstruct" or "generative_reconstruct": images of `split`, and beside each what the model makes of it;
                "super_resolve": images, their compressed images, and images drawn from those; "interpolate": rows between pairs
                of images; "interpolate_outer": the same of the latents of the first of two stages alone; "interpolate_noise":
                rows between pairs of new images.
            num_samples: how many new images, rows, or variations of each image; given `images` are all shown.
            seed: of what is random; image i of a seed is always the same.
            temperature: scales the prior's standard deviation ("prior", "stages", "variations", "interpolate_noise").
            spherical: whether "interpolate" and "interpolate_noise" go along a great circle.
            strength: of "variations", how far from the image's reconstruction, 0, to those of new images, 1.
            split: of the real images.
            checkpoint, image_draw: as for `model`.
            place: as for `data`.
            other_dataset: another data set, as --dataset, prepared as the run's, whose images are shown in place of the run's.
            other_test_split: its test split, as --test_split.
            images: shown in place of the run's: uint8 [N, H, W, C], or paths of files, which are prepared as the run's images.
            class_name: of "prior", "variations", "reconstruct", "interpolate": the class of all images, its name or number.

        Returns:
            uint8 [height, width, C]; `from tfcq import picture_files` and `picture_files.write(path, picture)` make a file of it.

        Raises:
            UserError: an unknown mode, one that the model lacks, or fewer images than it needs.
        """
        if mode not in MODES:
            raise UserError(f"mode: expected one of {', '.join(MODES)}, received {mode!r}{suggestion(mode, MODES)}")
        check_integer("num_samples", num_samples, 1)
        shows_given = mode not in ("prior", "stages", "interpolate_noise")
        if other_dataset and not shows_given:
            raise UserError(f"other_dataset: mode={mode} shows no given images; expected it with another mode")
        if images is not None and (not shows_given or other_dataset or (place and place.dataset)):
            raise UserError(f"images: expected a mode that shows given images, and no other data set; received mode={mode}")
        if not 0.0 <= strength <= 1.0:
            raise UserError(f"strength: expected a number from 0 to 1, received {strength}")
        if mode == "variations" and images is None:
            raise UserError("mode=variations: expected images, of which it shows variations")
        if other_dataset and place and (place.dataset or place.accept_changed_data):
            raise UserError("other_dataset: expected it without dataset and accept_changed_data, which are of the run's images")
        if class_name != "" and mode not in shown_images.GIVEN_A_CLASS:
            raise UserError(f"class_name: expected mode to be one of {', '.join(shown_images.GIVEN_A_CLASS)}, received {mode}")
        model = self.model(checkpoint, image_draw)
        if mode in ("stages", "interpolate_outer") and not hasattr(model, "draw_stages"):
            raise UserError(f"mode={mode}: expected a run of a model of two stages (srvae), received one of {model.name}")
        from tfcq.evaluation.pictures import Pictures

        pictures = Pictures(model)
        if mode == "prior":
            return pictures.prior_grid(num_samples, seed, temperature, class_name)
        if mode == "stages":
            return pictures.stages_grid(num_samples, seed, temperature)
        if mode == "interpolate_noise":
            return pictures.noise_interpolation_grid(num_samples, seed=seed, spherical=spherical, temperature=temperature)
        interpolates = mode in ("interpolate", "interpolate_outer")
        model.require(pictures.ability_of(mode, class_name))
        if images is not None:
            shown = shown_images.prepared(model, images)
        else:
            other = (other_dataset, other_test_split, place)
            dataset = shown_images.of_other_data(model, *other) if other_dataset else self.data(place)
            shown = shown_images.first(dataset, split, num_samples, mode, 2 if interpolates else 1)
        if mode == "variations":
            return pictures.variation_grid(shown, num_samples, strength, seed, temperature, class_name)
        if interpolates:
            return pictures.interpolation_grid(shown, 8, seed, spherical, mode == "interpolate_outer", class_name)
        if mode == "super_resolve":
            return pictures.super_resolution_grid(shown, seed=seed)
        return pictures.reconstruction_grid(shown, seed, mode, class_name)

    def sample(
        self, num_images: int = 64, class_name: str | int = "", seed: int = 0, temperature: float = 1.0, checkpoint: str = "best"
    ) -> np.ndarray:
        """New images, uint8 [num_images, H, W, C]; image i of a seed is always the same.

        Args:
            num_images: how many.
            class_name: their class, its name or number, of a model with classes; "": each one's is drawn, too.
            seed, temperature: as for `picture`.
            checkpoint: as for `model`.

        Raises:
            UserError: no run, a class that the model does not know, or a number out of range.
        """
        check_integer("num_images", num_images, 1)
        model = self.model(checkpoint)
        from tfcq.evaluation.pictures import Pictures

        return Pictures(model).samples(num_images, seed, temperature, class_name)

    def data(self, place: ImagesPlace | None = None) -> ImageDataset:
        """The images of a run that has begun, in its own splits: `run.data().images("test", range(8))`.

        Args:
            place: `tfcq.config.evaluation.ImagesPlace`, where they are now; None: where they were.

        Raises:
            UserError: no run, or images that cannot be read or are not those of the run.
        """
        settings.import_tensorflow()
        return workdirs.load_data(self.workdir, place)

    def history(self, name: str = "train") -> History:
        """The curves of the run, as in TensorBoard, as a table.

        Args:
            name: "train" (means over `log_every` steps), "validation", or "evaluation" (of `evaluate`).

        Returns:
            `tfcq.history.History`: {"step": int64 [rows], a scalar's name: float64 [rows], NaN where it is missing}. It prints
            as a table, and `pandas.DataFrame(run.history())` works.

        Raises:
            UserError: no run, or no such table in it.
        """
        workdirs.read_config(self.workdir)  # reports a folder without a run
        settings.import_tensorflow()
        from tfcq.history import read

        return read(self.workdir, name)

    def metrics(self) -> list[dict]:
        """The rows of metrics.jsonl, the oldest first: periodic evaluations, and those of `evaluate` (with "checkpoint")."""
        workdirs.read_config(self.workdir)  # reports a folder without a run
        return workdirs.read_metrics(self.workdir)

    def _config_with_kept_images(self, given: dict[str, np.ndarray]) -> Config:
        """The Config to train with; its data set is images.npz in the workdir if images are given, or kept there.

        Raises:
            UserError: images are given, and the configuration names others.
        """
        config, here = self.config, f"npz:{self.workdir.absolute() / workdirs.IMAGES}"
        kept = workdirs.read_config(self.workdir).data if workdirs.exists(self.workdir) else DataConfig()
        default = DataConfig().dataset
        if given and config.data.dataset not in (here, default):
            raise UserError(
                f"images: expected either images= or DataConfig(dataset=...), received both (dataset={config.data.dataset}); "
                "leave one out"
            )
        data = config.data
        if given:
            height, width = given["train"].shape[1:3]
            if data == DataConfig() and height == width:  # nobody said another size
                data = dataclasses.replace(data, image_size=height)
            data = dataclasses.replace(data, dataset=here)
        elif kept.dataset == here and data == DataConfig():
            data = kept
        elif kept.dataset == here and data.dataset == default:
            data = dataclasses.replace(data, dataset=here)
        return dataclasses.replace(config, data=data)
