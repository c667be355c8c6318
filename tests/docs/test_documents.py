"""What README.md and docs/ name exists: commands, flags, presets, files, names of Python; and README stays one screen."""

import ast
import importlib
import re

import pytest
from commands import command_of
from documents import PAGES, ROOT, blocks, command_lines, name_of

from tfcq import __main__ as console
from tfcq.config import SYSTEMS

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")

# Flags of curl, TensorBoard, Docker, TF Serving, TFDS, and of what starts clusters (of those with hyphens the first word).
OF_OTHERS = {"noproxy", "logdir", "rm", "enable_batching", "batching_parameters_file", "manual_dir"}
OF_OTHERS |= {"file", "tag", "build", "volume", "filename", "follow", "selector", "nodes", "ntasks", "gpus", "nv", "time"}


@pytest.fixture(scope="module", name="flags")
def fixture_flags():
    """The flags of every command and tool that has any."""
    tools = re.findall(r'flags\.\w+\(\s*"(\w+)"', "".join(path.read_text() for path in (ROOT / "tools").glob("*.py")))
    return [*(command_of(name).flags() for name in console.COMMANDS), tools]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_that_a_page_names_exists(page, flags):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--([a-z]\w+)", text)) - OF_OTHERS
    missing = [name for name in named if not any(name in one or name.removeprefix("no") in one for one in flags)]
    assert not missing, f"{name_of(page)}: no command has {missing}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_line_of_a_page_can_be_read(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for _, text in blocks(page, "bash", "sh"):
        for line in command_lines(text):
            line = line[line.index("tfcq") :] if "tfcq" in line else line  # behind `timeout 40m`
            if line[0] == "tfcq":
                command_of(line[1]).flags().parse(line[2:])
            elif line[0].startswith("tools/"):
                assert (ROOT / line[0]).stat().st_mode & 0o100
            else:
                assert line[0] in ("tensorboard", "curl", ".", "docker", "kubectl", "sbatch"), line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_of_tfcq_on_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"`(tfcq(?:\.\w+)+)", text)) | set(re.findall(r"^::: (tfcq[\w.]*)", text, re.MULTILINE))
    for _, block in blocks(page, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("tfcq."):
                names |= {re.match(r"[\w.]+", ast.unparse(node))[0]}
    for name in names - {"tfcq.NAME"}:
        if name.startswith("tfcq."):
            resolve(name)


def resolve(name):
    """The module or attribute of that dotted name."""
    found, parts = importlib.import_module("tfcq"), name.split(".")
    for number, part in enumerate(parts[1:], start=1):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[: number + 1]))
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_the_repository_that_a_page_names_exists(page):
    named = re.findall(r"`((?:docs|configs|tools|tests|serving|tfcq)/[\w./]+\w)`", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name and "FAMILY" not in name]


def test_readme_is_one_screen_and_its_links_hold_on_a_package_index():
    assert len(README.splitlines()) <= 110
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]*)\)", README))


def test_the_picture_of_readme_exists():
    pictures = re.findall(r'<img src="([^"]+)"', README)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)


def test_readme_has_every_system_and_only_figures_that_were_measured():
    rows = [line.strip("| ").split(" | ") for line in README.partition("| system |")[2].splitlines() if line.startswith("|")]
    rows = {row[1].strip("`"): row[3] for row in rows[1:]}
    assert rows.keys() == SYSTEMS.keys()
    for system, cell in rows.items():
        figures = re.findall(r"\b\d+(?:\.\d+)? \+ \d+\b|\b\d+\.\d+\b|\b\d+(?= steps)", cell)
        assert figures or cell == "UNMEASURED", system
        assert all(re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]\d)", RESULTS) for figure in figures), (system, figures)


def test_every_system_has_a_page_that_cites_its_paper():
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "systems").glob("*.md")}
    for system in SYSTEMS:
        page = pages.get(system, pages["autoencoders"])
        assert f"`--model={system}`" in page and f"({'' if system in pages else 'autoencoders.md#'}" in pages["index"]
        assert "{{ cite(" in page and ('{{ options("' + system in page or "no further options" in page)
