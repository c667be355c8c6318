"""Where the model of a job is: in a workdir, or exported. No TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib

from tfcq import workdir as workdirs
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True)
class ModelPlace:
    """Where a model is; give `workdir` or `export`.

    Args:
        workdir: folder of a run.
        export: folder of an exported model, or of one of its versions.
        checkpoint, image_draw: of a workdir, as in `tfcq.Run.model`.
        num_importance_samples: K of the likelihood of a workdir's model; that of an export is fixed.
    """

    workdir: pathlib.Path | None = None
    export: pathlib.Path | None = None
    checkpoint: str = "best"
    image_draw: str = ""
    num_importance_samples: int = 50

    @property
    def path(self) -> pathlib.Path:
        """The folder that is given."""
        path = self.export if self.workdir is None else self.workdir
        assert path is not None
        return path

    def absolute(self) -> ModelPlace:
        """The same place for a process in another folder."""
        path = self.path.absolute()
        return dataclasses.replace(self, export=path) if self.workdir is None else dataclasses.replace(self, workdir=path)

    def check(self) -> None:
        """Raises UserError if there is no run, or no export."""
        if (self.workdir is None) == (self.export is None):
            received = "neither" if self.workdir is None else "both"
            raise UserError(
                f"expected either --workdir=DIR of a trained run or --export=DIR of an exported model, received {received}"
            )
        if self.workdir is not None:
            workdirs.read_config(self.workdir)
        else:
            self.version()

    def version(self) -> pathlib.Path:
        """The folder of the export with saved_model.pb: `export` itself, or the largest of its numbers; UserError if none."""
        if (self.path / "saved_model.pb").is_file():
            return self.path
        names = [path.parent.name for path in self.path.glob("*/saved_model.pb")]
        versions = [int(name) for name in names if name.isascii() and name.isdecimal()]
        if not versions:
            raise UserError(
                f"export {self.path}: expected an exported model, a folder with saved_model.pb or with versions that have one, "
                "found none; tfcq export writes one"
            )
        return self.path / str(max(versions))
