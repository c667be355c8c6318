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

from tfcq import data, files
from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.training import events

LOCK = "lock"
"""Name of the file that a training locks: evaluation, export and the like may go on beside it."""

WRITERS = ("train", "validation")
"""Those of TensorBoard's folders that training writes."""


@contextlib.contextmanager
def opened(config, workdir):
    """Holds the folder of a run of `config`, made where it is not there, for one training; gives an `OpenedRun`.

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
        with _locked(folder):
            workdirs.check_for(config, folder)
            files.remove_partial(folder)
            yield OpenedRun(config, folder)
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


class OpenedRun:
    """What `opened` gives: begins the run once nothing can be refused any more.

    Attributes:
        folder: pathlib.Path.
        config: `tfcq.Config`.
    """

    def __init__(self, config, folder):
        self.config, self.folder = config, folder

    def config_before(self):
        """The Config that the run in the folder had until now; None where none has begun."""
        begun = workdirs.exists(self.folder) and workdirs.has_begun(self.folder)
        return workdirs.read_config(self.folder) if begun else None

    def load_data(self, accept_changed_data=False):
        """The images of the run: of one that has begun, in the splits that it began with (`tfcq.data.load`)."""
        if self.config_before() is None:
            return data.load(self.config.data)
        manifest = workdirs.read_manifest(self.folder)
        workdirs.require_place(self.config.data)
        dataset = data.load(self.config.data, manifest, accept_changed_data)
        if manifest is None:
            workdirs.check_description(self.folder, dataset)
        return dataset

    def has_other_images(self, dataset):
        """Whether a run that has begun goes on with other training images than it began with."""
        manifest = workdirs.read_manifest(self.folder) if self.config_before() else None
        return manifest is not None and manifest.fingerprint("train") != dataset.manifest.fingerprint("train")

    def begin(self, step, dataset):
        """Makes the folder a run that begins, or goes on, at `step`: config, environment, facts of the data, history.

        Rows of metrics, events of TensorBoard and pictures of `step` and less stay; at step 0 nothing was trained, and none do.
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
            workdirs.open_for(self.config, self.folder, step)
            workdirs.keep_data(self.folder, dataset, step if begun else None)

    def row_of(self, step):
        """The row of metrics that training has left of `step`; None where there is none."""
        rows = workdirs.read_metrics(self.folder)
        return next((row for row in rows if "checkpoint" not in row and row.get("step") == step), None)


@contextlib.contextmanager
def _locked(folder):
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
            yield
        finally:
            path.unlink(missing_ok=True)
