"""Executes the notebook of docs/ in a folder of its own, and keeps its results in it.

    python tools/execute_notebook.py --output=DIR

What the cells print as progress is left out.
"""

import pathlib
import sys
from collections.abc import Mapping

import nbformat
from nbclient import NotebookClient

from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError

NOTEBOOK = pathlib.Path(__file__).parents[1] / "docs" / "own-pictures.ipynb"


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.folder("output", None, "The folder for what the notebook writes; new or empty")


def main(flags: Flags) -> None:
    """Executes the notebook, and writes it with its results."""
    if not flags.output or (flags.output.exists() and any(flags.output.iterdir())):
        raise UserError("output: expected a new or empty folder for what the notebook writes")
    nbformat.write(executed(flags.output), NOTEBOOK)
    print(f"wrote {NOTEBOOK}", flush=True)


def executed(folder: pathlib.Path, replaced: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """The notebook with the results of its cells.

    Args:
        folder: where they run; it is made if it is missing.
        replaced: {text in cells: text that is run in its place}, as for fewer steps.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for text, other in (replaced or {}).items():
            cell.source = cell.source.replace(text, other)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = list(_kept(cell.outputs, f"{folder.absolute()}/"))
    return notebook


def _kept(outputs, folder):
    """The outputs of a cell without stderr, lines that were rewritten, a picture's second form, and the name of the folder."""
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout").replace("\r\n", "\n")
    lines = [line.rpartition("\r")[2].rstrip().replace(folder, "") for line in printed.split("\n")]
    if any(lines):
        yield nbformat.v4.new_output("stream", name="stdout", text="".join(f"{line}\n" for line in lines if line))
    for output in outputs:
        if "data" in output:
            output.data.pop("image/jpeg", None)
            yield output


COMMAND = Command("tools/execute_notebook.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
