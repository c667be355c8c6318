"""A run's folder while a training has it: held against a second one, made a run only when training really begins.

Whatever is refused before the first step leaves nothing behind; whatever a killed training has written beyond the checkpoint from
which it goes on is taken back, since it is going to be written again.
"""

import contextlib
import datetime
import os
import pathlib
import re
import socket

from tfcq import data
from tfcq import workdir as workdirs
from tfcq.engine import checkpoints
from tfcq.errors import UserError
from tfcq.machine import files
from tfcq.training import events, progress

LOCK = "lock"
"""Name of the file that a training locks: evaluation, export and the like may go on beside it."""

WRITERS = ("train", "validation")
"""Those of TensorBoard's folders that training writes."""


@contextlib.contextmanager
def opened(config, workdir, accept_changed_data=False):
    """Holds the folder of a run of `config`, made where it is not there, for one training; gives an `OpenedRun`.

    `accept_changed_data` is as of `tfcq.training.run.train`.

    When the block ends the lock is gone, and so are folders that were made here and that nothing was written to.

    Raises:
        UserError: another training has the folder, it holds a run of another config, or it cannot be written.
    """
    folder = pathlib.Path(workdir)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with files.writing("workdir", folder):
            folder.mkdir(parents=True, exist_ok=True)
        files.check_folder("workdir", folder)
        with _locked(folder) as held:
            workdirs.check_for(config, folder, accept_changed_data)
            _check_writable(folder)
            files.remove_partial(folder)
            if held:  # else another training may be writing it
                checkpoints.remove_half_written(folder)
            yield OpenedRun(config, folder, accept_changed_data)
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


class OpenedRun:
    """What `opened` gives: begins the run once nothing can be refused any more.

    Attributes:
        folder: pathlib.Path.
        config: `tfcq.Config`.
        accept_changed_data: as of `opened`.
    """

    def __init__(self, config, folder, accept_changed_data=False):
        self.config, self.folder, self.accept_changed_data = config, folder, accept_changed_data

    def config_before(self):
        """The Config that the run in the folder had until now; None where none has begun."""
        begun = workdirs.exists(self.folder) and workdirs.has_begun(self.folder)
        return workdirs.read_config(self.folder) if begun else None

    def load_data(self):
        """The images of the run: of one that has begun, in the splits that it began with (`tfcq.data.load`)."""
        if self.config_before() is None:
            return data.load(self.config.data)
        return workdirs.images_of(self.folder, self.config.data, self.accept_changed_data)

    def require_numbers(self, dataset):
        """Raises UserError where the numbers that the training images had when the run began are not known.

        So it is where there is no list of them, and there are more or fewer now: each may have another number then.
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

    def check_files(self, digests):
        """Raises UserError where a run that has begun has read other files: `workdir.check_files`."""
        if self.config_before() is not None:
            workdirs.check_files(self.folder, self.config, digests)

    def begin(self, step, dataset, digests=None):
        """Makes the folder a run that begins, or goes on, at `step`: config, environment, facts of the data, history.

        Rows of metrics, events of TensorBoard and pictures of `step` and less stay; at step 0 nothing was trained, and none do.

        Args:
            step: from which training goes on.
            dataset: `ImageDataset`.
            digests: of the files that training has read beside, `GenerativeModel.files_read`; None: of none.
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
            for name in WRITERS:
                # A last evaluation without its row was interrupted, and will be made again.
                unfinished = name == "validation" and not self.row_of(step)
                events.drop_after(self.folder / "tensorboard" / name, last - unfinished)
            for path in (self.folder / "samples").glob("*-*.png"):
                number = re.fullmatch(r".*-(\d{8,})\.png", path.name)
                if number and int(number[1]) > last:
                    path.unlink()
            begun = self.config_before() is not None
            workdirs.open_for(self.config, self.folder, step, self.accept_changed_data)
            workdirs.keep_data(self.folder, dataset, step if begun else None, digests)

    def row_of(self, step):
        """The row of metrics that training has left of `step`; None where there is none."""
        rows = workdirs.read_metrics(self.folder)
        return next((row for row in rows if "checkpoint" not in row and row.get("step") == step), None)


def _check_writable(folder):
    """Tries, before the first step, what is written after many: a run may have been begun by another user."""
    workdirs.check_metrics_writable(folder)
    files.check_file("workdir", folder / "history.jsonl", appends=True)
    files.check_file("workdir", folder / progress.FILE)
    written = [f"checkpoints/{kind}" for kind in checkpoints.KINDS] + [f"tensorboard/{name}" for name in WRITERS] + ["samples"]
    for path in (folder / name for name in written):
        if path.exists():  # the others are made in the folder itself
            files.check_folder("workdir", path)


@contextlib.contextmanager
def _locked(folder):
    """Gives whether the folder is held: not every file system has locks."""
    path = folder / LOCK
    with contextlib.ExitStack() as stack:
        try:
            with files.writing("workdir", folder):
                lock = stack.enter_context(files.Lock(path, wait=False))
        except UserError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            who = ""
            with contextlib.suppress(OSError):  # it may end just now
                who = path.read_text().strip()
            raise UserError(
                f"workdir {folder}: another training runs in it ({who or 'a process'}); expected it to end first, or another "
                "--workdir"
            ) from error
        if not lock.held:
            print(
                f"warning: workdir {folder}: its file system has no locks; make sure that no second training runs in it",
                flush=True,
            )
        try:
            with files.writing("workdir", folder):
                now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
                lock.file.truncate()
                lock.file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
                lock.file.flush()
            yield lock.held
        finally:
            path.unlink(missing_ok=True)
