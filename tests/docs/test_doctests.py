"""The examples in docstrings, those that begin with >>>, as they stand there."""

import doctest
import importlib
import pathlib

import pytest
from documents import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in pathlib.Path(ROOT, "tfcq").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples():
    assert {"tfcq", "tfcq.config.run", "tfcq.data", "tfcq.features", "tfcq.seeds"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_examples_of(module, tmp_path):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    names = {"workdir": tmp_path / "run"}
    result = doctest.testmod(importlib.import_module(module), extraglobs=names, optionflags=flags)
    assert result.attempted and not result.failed
