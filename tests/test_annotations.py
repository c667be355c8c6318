"""Every public function says the types of its arguments and of its answer; mypy (tools/test) checks that they fit."""

import ast
import pathlib

import pytest

import tfcq

PACKAGE = pathlib.Path(tfcq.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def public_functions(tree):
    """The public functions of a module, and the public methods of its public classes, with a name for messages."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, ()
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for one in node.body:
                if isinstance(one, ast.FunctionDef) and (one.name == "__init__" or not one.name.startswith("_")):
                    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in one.decorator_list)
                    yield f"{node.name}.{one.name}", one, () if static else one.args.args[:1]


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_are_annotated(module):
    missing = []
    for name, node, implied in public_functions(ast.parse((PACKAGE / module).read_text())):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        bare = [one.arg for one in arguments if one is not None and one not in implied and one.annotation is None]
        if bare or (node.returns is None and node.name != "__init__"):
            missing.append(f"{name}({', '.join(bare)})")
    assert not missing
