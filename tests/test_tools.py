"""What tools/ takes of tfcq is there: no other test runs them, and a renamed function would be missed."""

import ast
import importlib
import inspect
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tools").glob("*.py")), ids=lambda path: path.name)
def test_what_a_tool_takes_of_the_package_is_there(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tfcq":
            for name in node.names:
                try:
                    found = getattr(importlib.import_module(node.module), name.name)
                except AttributeError:
                    found = importlib.import_module(f"{node.module}.{name.name}")
                if inspect.ismodule(found):
                    modules[name.asname or name.name] = found
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
