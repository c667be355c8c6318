"""README.md and the pages of docs/, and what is in them."""

import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "configs" / "README.md", ROOT / "serving" / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def name_of(page):
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page, *languages):
    """[(language, text)] of a page's fenced blocks in these languages, in their order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def command_lines(text):
    """The command lines of a block for a shell, each a list of words without comments; a backslash goes on with the next line."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]
