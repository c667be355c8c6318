"""What tools/ takes of tfcq is there: no other test runs them, and a renamed function would be missed."""

import ast
import importlib
import importlib.util
import inspect
import pathlib

import pytest

import tfcq
from tfcq import workdir
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


def tool(name):
    """The module of a tool."""
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [path.stem for path in sorted((REPOSITORY / "tools").glob("*.py")) if "COMMAND = " in path.read_text()]
)
def test_a_tool_says_what_its_flags_are(name, capsys):
    if name == "execute_notebook":
        pytest.importorskip("nbclient", reason="needs the extra dev")
    assert tool(name).COMMAND.run(["--help"]) == 0
    assert f"tools/{name}.py" in capsys.readouterr().out


@pytest.fixture(name="project_gpu", scope="module")
def fixture_project_gpu():
    return tool("project_gpu")


def test_the_table_of_results_is_of_what_is_kept():
    """`python tools/results.py` writes it anew."""
    results = tool("results")
    assert (REPOSITORY / "configs" / "results.csv").read_text() == results.table(REPOSITORY / "configs" / "results")


def test_a_row_of_the_results_has_the_numbers_of_a_run(tmp_path):
    results, folder = tool("results"), tmp_path / "kept"
    config = tfcq.Config(model="vae", data=tfcq.DataConfig(dataset="folder:/home/me/cats", image_size=8))
    workdir.open_for(config, tmp_path / "run")
    (tmp_path / "run" / "progress.json").write_text('{"weights": 12, "seconds": 150.0}')
    bits = {"bits_per_dim": 3.5, "bits_per_dim_standard_error": 0.1, "num_importance_samples": 5, "num_images": 7, "nats": 1}
    distance = {"value": 40.0, "real": 2.0, "num_generated": 9, "num_real": 8, "split": "train"}
    distance |= {"extractor": "e", "checksum": "c"}
    elbo = {"bits_per_dim": 3.6, "nats": 1, "num_images": 7}
    measured = {"step": 4, "checkpoint": "best", "split": "test", "seed": 3, "dataset": "folder:/home/me/cats"}
    workdir.record_metrics(tmp_path / "run", measured | {"elbo": elbo, "bits_per_dim": bits, "fd_e": distance})
    workdir.record_metrics(tmp_path / "run", {"step": 4, "split": "validation"})  # of training: not what was evaluated
    facts = {"data": "cats", "command": "train", "machine": "mine", "minutes": None}
    results.keep(tmp_path / "run", folder / "mine", facts)
    (tmp_path / "results.csv").write_text(results.table(folder))
    (row,) = results.rows_of(tmp_path / "results.csv")
    expected = {"run": "mine", "system": "vae", "data": "cats", "image_size": "8", "steps": "4", "batch_size": "64"}
    expected |= {"minutes": "2.5", "weights": "12", "checkpoint": "best", "seed": "3"}
    expected |= {"elbo_bits_per_dim": "3.6", "elbo_bits_per_dim_protocol": "test; 7 images", "bits_per_dim": "3.5"}
    expected |= {"bits_per_dim_error": "0.1", "bits_per_dim_protocol": "test; K=5; 7 images", "fd_e": "40.0", "fd_e_real": "2.0"}
    expected |= {"fd_e_protocol": "train; 9 generated, 8 real; features e c"}
    assert {name: value for name, value in row.items() if value} == expected
    assert "/home/me" not in "".join(path.read_text() for path in (folder / "mine").iterdir())


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
    with pytest.raises(UserError, match="^rate_gflops: expected one or two numbers above 0, as 5390,8500, received"):
        project_gpu._rates(rates.split(","))
