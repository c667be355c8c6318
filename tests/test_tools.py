"""What tools/ takes of tfcq is there: no other test runs them, and a renamed function would be missed."""

import ast
import importlib
import importlib.util
import inspect
import pathlib

import pytest

from tfcq.errors import UserError

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


@pytest.fixture(name="project_gpu", scope="module")
def fixture_project_gpu():
    """The module tools/project_gpu.py."""
    specification = importlib.util.spec_from_file_location("project_gpu", REPOSITORY / "tools" / "project_gpu.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_projection_is_of_operations_and_rates(project_gpu):
    configs = project_gpu.configurations(["benchmark_cqf", "imagenet64_cqf"], ["1"], 720)
    assert [*configs] == ["benchmark_cqf", "imagenet64_cqf", *(f"Table 1: {row}" for row in ("gan", "vae", "cq", "cqf"))]
    assert (configs["Table 1: vae"].system.quality_weight, configs["Table 1: vae"].training.train_steps) == (0.0, 720)
    stages = {"benchmark_cqf": [(5000, 130.0)], "imagenet64_cqf": [(1000, 72000.4), (9, None)]}
    some = {name: configs[name] for name in stages}
    rows = project_gpu.projection(some, [100.0, 200.0], lambda config: stages[next(n for n in some if some[n] is config)])
    assert [[*row.values()] for row in rows] == [
        # 64 images in 1.3 s or 0.65 s; 5000 steps are 6500 s or 3250 s. 32 images in 720 s or 360 s.
        ["`benchmark_cqf`", "32, 64", "130", "5,000", "49.2 to 98.5", "0.9 to 1.8"],
        ["`imagenet64_cqf`, stage 0", "64, 32", "72,000", "1,000", "0.0444 to 0.0889", "100.0 to 200.0"],
        ["`imagenet64_cqf`, stage 1", "64, 32", "unknown", "9", "", ""],
    ]


@pytest.mark.parametrize("rates", ["", "fast", "0", "1,2,3", "inf", "nan"])
def test_rates_of_a_projection_are_one_or_two_numbers(project_gpu, rates):
    with pytest.raises(UserError, match="^rate_gflops: expected one or two numbers above 0, as 5390,13400, received"):
        project_gpu._rates(rates.split(","))
