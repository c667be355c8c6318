"""The folder of a run during training: locked against a second training, and made a run only when training really begins.

A training that is refused before its first step leaves nothing behind. What a killed training wrote beyond the checkpoint from
which the run resumes is removed, since it will be written again.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tfcq import data
from tfcq import workdir as workdirs
from tfcq.data import arrays
from tfcq.data.splits import SPLITS
from tfcq.engine import checkpoints
from tfcq.errors import UserError, named
from tfcq.machine import files, paths
from tfcq.training import loggers, progress

if TYPE_CHECKING:
    import numpy as np

    from tfcq.config import Config
    from tfcq.data import ImageDataset

LOCK = "lock"
"""Name of the file that a training locks; evaluations and exports may run at the same time."""

_SEEN_AFTER = 90.0
"""Seconds: a network file system may show another machine's files a minute late."""


@contextlib.contextmanager
def opened(
    config: Config,
    workdir: str | os.PathLike,
    accept_changed_data: bool = False,
    images: dict[str, np.ndarray] | None = None,
) -> Iterator[OpenedRun]:
    """A context in which the folder of a run is locked for one training; yields an `OpenedRun`.

    At its end the lock is released, and folders that were created here and are still empty are removed.

    Args:
        config: the configuration of the run.
        workdir: the folder; created if it does not exist.
        accept_changed_data, images: as in `tfcq.training.run.train`.

    Raises:
        UserError: another training has locked the folder, it holds a run of another config, or it cannot be written.
    """
    folder = paths.as_path(workdir)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with files.writing("workdir", folder):
            folder.mkdir(parents=True, exist_ok=True)
        files.check_folder("workdir", folder)
        with _locked(folder) as (held, require):
            workdirs.check_for(config, folder, accept_changed_data)
            _check_writable(folder)
            files.remove_partial(folder)
            if held:  # otherwise another training may be writing them
                checkpoints.remove_half_written(folder)
            yield OpenedRun(config, folder, accept_changed_data, images, require)
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def joined(
    config: Config,
    workdir: str | os.PathLike,
    accept_changed_data: bool = False,
    images: dict[str, np.ndarray] | None = None,
) -> Iterator[OpenedRun]:
    """Like `opened`, for a worker beside the one that has opened the folder: locks and writes nothing."""
    yield OpenedRun(config, paths.as_path(workdir), accept_changed_data, images)


class OpenedRun:
    """A locked folder of a run, from `opened`; `begin` starts the run after all checks.

    Attributes:
        config, accept_changed_data, images: as in `opened`.
        folder: path of the folder.
        require_lock: raises UserError if another training has the folder by now, as may be at an address.
    """

    def __init__(
        self,
        config: Config,
        folder: paths.AnyPath,
        accept_changed_data: bool = False,
        images: dict[str, np.ndarray] | None = None,
        require_lock: Callable[[], None] = lambda: None,
    ):
        self.config, self.folder, self.accept_changed_data = config, folder, accept_changed_data
        self.require_lock = require_lock
        self.images = images or {}

    def mark(self) -> str:
        """What the training that has opened the folder wrote into its lock; "": nothing is seen there."""
        try:
            if paths.is_remote(self.folder):
                return _remote_lock(self.folder).holder()
            return (self.folder / LOCK).read_text()
        except OSError:
            return ""

    def check_mark(self, mark: str, seconds: float = _SEEN_AFTER) -> None:
        """Checks that this worker sees the folder that the chief has opened, whose `mark` is given.

        Args:
            mark: the chief's.
            seconds: how long a change may take to be seen.

        Raises:
            UserError: it does not.
        """
        ends = time.monotonic() + seconds
        while self.mark() != mark:
            if time.monotonic() > ends:
                raise UserError(
                    f"workdir {self.folder}: expected the folder in which the chief trains ({mark.strip()}), received another "
                    "or none; all workers need one folder on a file system that they share"
                )
            time.sleep(0.5)

    def config_before(self) -> Config | None:
        """The Config that the run in the folder had until now; None if no run has begun."""
        begun = workdirs.exists(self.folder) and workdirs.has_begun(self.folder)
        return workdirs.read_config(self.folder) if begun else None

    def load_data(self) -> ImageDataset:
        """The images of the run (`tfcq.data.load`); a run that has begun keeps its splits."""
        before, place = self.config_before(), self.folder.absolute() / workdirs.IMAGES
        if before is None:
            if not self.images:
                return data.load(self.config.data)
            if place.exists() and not self._names_kept_images():
                arrays.check_kept(place, self.images, "move that file away, or use another workdir")
            return data.load(self.config.data, source=arrays.source_of(self.images, place))
        if self.images:
            if before.data.dataset != f"npz:{place}":
                raise UserError(
                    f"workdir {self.folder} holds a run of {before.data.dataset}; leave images= out to resume it, or use another "
                    "workdir"
                )
            given = "images= and classes=" if self.config.class_conditional else "images="
            arrays.check_kept(place, self.images, f"leave {given} out to resume that run, or use another workdir")
        return workdirs.images_of(self.folder, self.config.data, self.accept_changed_data)

    def classes(self, dataset: ImageDataset) -> dict[str, Any] | None:
        """`Classes.facts` of the images, for a model with classes: names and counts are those that the run began with.

        None: the model has no classes.

        Raises:
            UserError: the images have no classes, or one that training does not know, or others than when the run began.
        """
        if not self.config.class_conditional:
            return None
        with named("class_conditional"):
            now, before = dataset.classes.facts(), None
        if self.config_before() is not None:
            before = workdirs.data_facts(self.folder).get("classes")
        if before and before["digest"] != now["digest"] and not self.accept_changed_data:
            raise UserError(
                f"dataset {self.config.data.dataset}: training images are of other classes than when the run began; put them "
                "back, or go on with --accept_changed_data"
            )
        facts = now | {name: before[name] for name in ("names", "counts")} if before else now
        for split in SPLITS:
            dataset.classes_of(split, facts["names"])
        return facts

    def _names_kept_images(self):
        """Whether a configuration in the folder names the images there, so that they are its own."""
        if not workdirs.exists(self.folder):
            return False
        return workdirs.read_config(self.folder).data.dataset == f"npz:{self.folder.absolute() / workdirs.IMAGES}"

    def require_numbers(self, dataset: ImageDataset) -> None:
        """Raises UserError if the numbers that the training images had when the run began are unknown.

        This is the case if there is no list of them and their count has changed, so that an image may have another number now.
        """
        if self.config_before() is None or workdirs.read_manifest(self.folder):
            return
        kept, now = workdirs.kept_sizes(self.folder).get("train"), dataset.num_images("train")
        if kept not in (None, now):
            raise UserError(
                f"accept_changed_data with model={self.config.model}: it learns something of each training image by its number, "
                f"and there is no list of this run's {kept} (earlier versions of tfcq kept none); expected {kept}, received "
                f"{now}; bring the images back, or begin another --workdir"
            )

    def check_files(self, digests: Mapping[str, str]) -> None:
        """Raises UserError if the run has begun with other files: `workdir.check_files`."""
        if self.config_before() is not None:
            workdirs.check_files(self.folder, self.config, digests)

    def begin(
        self,
        step: int,
        dataset: ImageDataset,
        digests: Mapping[str, str] | None = None,
        weights: Mapping[str, Any] | None = None,
        classes: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the files of a run that begins or resumes at `step`: config, environment, facts about the data, history.

        Rows of metrics, events of TensorBoard and pictures up to `step` are kept; at step 0, before any training, none are.

        Args:
            step: from which training begins or resumes.
            dataset: the images.
            digests: of the other files that training has read, `GenerativeModel.files_read`; None: none.
            weights: where the first weights are from, `FirstWeights.facts`; None: they are the run's own.
            classes: from `classes`.
        """
        with files.writing("workdir", self.folder):
            last = step or -1
            if self.config_before() is None and workdirs.exists(self.folder):
                differences = workdirs.read_config(self.folder).differences(self.config)
                if differences:
                    print(
                        f"workdir {self.folder}: the configuration of an earlier run, which saved no checkpoint, is replaced "
                        f"(saved -> given): {'; '.join(differences)}",
                        flush=True,
                    )
            workdirs.drop_metrics_after(self.folder, last)
            for name in loggers.SPLITS:
                # A last evaluation without its row was interrupted, and will be repeated.
                unfinished = name == "validation" and not self.row_of(step)
                loggers.drop_after(self.folder, name, last - 1 if unfinished else last)
            for path in (self.folder / "samples").glob("*-*.png"):
                number = re.fullmatch(r".*-(\d{8,})\.png", path.name)
                if number and int(number[1]) > last:
                    path.unlink()
            begun = self.config_before() is not None
            if self.images and not begun:
                arrays.keep(self.folder.absolute() / workdirs.IMAGES, self.images)
            workdirs.open_for(self.config, self.folder, step, self.accept_changed_data)
            workdirs.keep_data(self.folder, dataset, step if begun else None, digests, classes)
            if weights:
                workdirs.record_changes(self.folder, step, {"weights": [None, dict(weights)]})
            if "tensorboard" in self.config.training.names_of_loggers():
                workdirs.describe(self.folder, self.config)

    def rows_until(self, step: int) -> list[dict]:
        """The rows of metrics that training wrote up to `step`, in their order; those beyond it will be measured again."""
        rows = workdirs.read_metrics(self.folder) if self.config_before() else []
        return [row for row in rows if "checkpoint" not in row and row["step"] <= step]

    def row_of(self, step: int) -> dict | None:
        """The row of metrics that training wrote at `step`; None if there is none."""
        rows = workdirs.read_metrics(self.folder)
        return next((row for row in rows if "checkpoint" not in row and row.get("step") == step), None)


def _check_writable(folder):
    """Checks before the first step that later files can be written: another user may have begun the run."""
    workdirs.check_metrics_writable(folder)
    files.check_file("workdir", folder / "history.jsonl", appends=True)
    files.check_file("workdir", folder / progress.FILE)
    written = [f"checkpoints/{kind}" for kind in checkpoints.KINDS] + [f"tensorboard/{name}" for name in loggers.SPLITS]
    written += ["tensorboard", "samples", loggers.CSV_FOLDER]
    for path in (folder / name for name in written):
        if path.exists():  # the others are created in the folder itself
            files.check_folder("workdir", path)


@contextlib.contextmanager
def _locked(folder):
    """A context that locks the folder; yields (whether it is locked, `OpenedRun.require_lock`).

    Not every file system has locks.
    """
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {now}"
    with _locked_remotely(folder, holder) if paths.is_remote(folder) else _locked_here(folder, holder) as found:
        yield found


@contextlib.contextmanager
def _locked_here(folder, holder):
    path = folder / LOCK
    with contextlib.ExitStack() as stack:
        try:
            with files.writing("workdir", folder):
                lock = stack.enter_context(files.Lock(path, wait=False))
        except UserError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            who = ""
            with contextlib.suppress(OSError):  # it may end at this moment
                who = path.read_text().strip()
            raise _refused(folder, who) from error
        if not lock.held:
            print(
                f"warning: workdir {folder}: its file system has no locks; make sure that no second training runs in it",
                flush=True,
            )
        try:
            with files.writing("workdir", folder):
                lock.file.truncate()
                lock.file.write(f"{holder}\n".encode())
                lock.file.flush()
            yield lock.held, lambda: None
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked_remotely(folder, holder):
    lock = _remote_lock(folder, holder)

    def require():
        try:
            lock.require()
        except BlockingIOError as error:
            raise _refused(folder, error.strerror) from error

    with contextlib.ExitStack() as stack:
        try:
            with files.writing("workdir", folder):
                stack.enter_context(lock)
        except UserError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise _refused(folder, error.__cause__.strerror) from error
            raise
        yield True, require


def _remote_lock(folder, holder=""):
    from tfcq.machine.remote_lock import RemoteLock

    return RemoteLock(
        folder / LOCK, holder, wait=False, say=lambda line: print(f"workdir {folder}: locked by {line}", flush=True)
    )


def _refused(folder, who):
    return UserError(
        f"workdir {folder}: another training runs in it ({who or 'a process'}); expected it to end first, or another --workdir"
    )
