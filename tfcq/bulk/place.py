"""Where the model of a job is: in a workdir, exported, or at a server. No TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib

from tfcq import workdir as workdirs
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True)
class ModelPlace:
    """Where a model is; give `workdir`, `export` or `server`.

    Args:
        workdir: folder of a run.
        export: folder of an exported model, or of one of its versions.
        server: "host:port/MODEL" of a server's gRPC, or "http://host:port/MODEL" of its REST API.
        checkpoint, image_draw: of a workdir, as in `tfcq.Run.model`.
        num_importance_samples: K of the likelihood of a workdir's model; that of an export is fixed.
    """

    workdir: pathlib.Path | None = None
    export: pathlib.Path | None = None
    checkpoint: str = "best"
    image_draw: str = ""
    num_importance_samples: int = 50
    server: str = ""

    @property
    def given(self) -> tuple[str, str]:
        """(the name of the argument that is given, its value as text)."""
        ((name, value),) = self._places().items()
        return name, str(value)

    def absolute(self) -> ModelPlace:
        """The same place for a process in another folder."""
        folders = {name: getattr(self, name) for name in ("workdir", "export")}
        return dataclasses.replace(self, **{name: folder and folder.absolute() for name, folder in folders.items()})

    def check(self) -> None:
        """Raises UserError if there is no run, or no export; a server is not asked."""
        places = self._places()
        if len(places) != 1:
            received = " and ".join(f"--{name}" for name in places) or "none of them"
            raise UserError(
                "expected one of --workdir=DIR of a trained run, --export=DIR of an exported model, --server=ADDRESS/MODEL of a "
                f"served one; received {received}"
            )
        if self.workdir is not None:
            workdirs.read_config(self.workdir)
        elif self.export is not None:
            self.version()
        else:
            self.address_and_model()

    def address_and_model(self) -> tuple[str, str]:
        """(the address of the server, the model's name there); UserError if `server` has another form.

        >>> ModelPlace(server="http://localhost:8501/cqf").address_and_model()
        ('http://localhost:8501', 'cqf')
        """
        address, _, model = self.server.rpartition("/")
        if not model or not address or address.endswith(("/", ":")):
            expected = "host:port/MODEL (gRPC) or http://host:port/MODEL (REST)"
            raise UserError(f"server: expected {expected}, received {self.server!r}")
        return address, model

    def _places(self):
        values = {name: getattr(self, name) for name in ("workdir", "export", "server")}
        return {name: value for name, value in values.items() if value not in (None, "")}

    def version(self) -> pathlib.Path:
        """The folder of the export with saved_model.pb: `export` itself, or the largest of its numbers; UserError if none."""
        assert self.export is not None
        if (self.export / "saved_model.pb").is_file():
            return self.export
        names = [path.parent.name for path in self.export.glob("*/saved_model.pb")]
        versions = [int(name) for name in names if name.isascii() and name.isdecimal()]
        if not versions:
            raise UserError(
                f"export {self.export}: expected an exported model, a folder with saved_model.pb or with versions that have one, "
                "found none; tfcq export writes one"
            )
        return self.export / str(max(versions))
