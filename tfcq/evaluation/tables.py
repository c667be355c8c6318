"""Tables of Markdown for people."""

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence]) -> str:
    """The lines of a table; a | in a cell, which would end the cell, is escaped unless it already is."""

    def cells(row):
        return [re.sub(r"(?<!\\)\|", r"\\|", str(cell)) for cell in row]

    # Cells are text already; tabulate would format numbers with other digits.
    return tabulate(map(cells, rows), cells(headings), tablefmt="github", disable_numparse=True)
