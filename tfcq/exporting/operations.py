"""Whether TF Serving's stock image can run an exported graph: compares its operations and their attributes with a list.

The image's TensorFlow is older than the one that exports (`serving/README.md`). A server refuses a graph with an operation or
an attribute that it does not know, and one whose format is too new.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator

from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfcq.machine.paths import AnyPath

LIST = pathlib.Path(__file__).with_name("operations_of_tf_serving.txt")  # made by tools/list_operations.py


@functools.cache
def of_tf_serving() -> tuple[str, int, dict[str, frozenset[str]]]:
    """(version of TensorFlow, version of its graphs' format, {operation: names of its attributes}) of the stock image."""
    lines = [line.split() for line in LIST.read_text().splitlines() if not line.startswith("#")]
    (_, version), (_, graph_def_version), *operations = lines
    return version, int(graph_def_version), {name: frozenset(attributes) for name, *attributes in operations}


def lacking(saved_model: saved_model_pb2.SavedModel) -> list[str]:
    """What a SavedModel needs and the stock image lacks, sorted: "NewOperation", "Conv2D(new_attribute)", ...

    Looks at the nodes of all graphs and functions.
    """
    _, newest, known = of_tf_serving()
    found = set()
    for meta_graph in saved_model.meta_graphs:
        graph = meta_graph.graph_def
        functions = {function.signature.name for function in graph.library.function}
        for node in _nodes(graph):
            if node.op not in known and node.op not in functions:  # a function may be called by its name
                found.add(node.op)
            elif node.op in known:
                attributes = {name for name in node.attr if not name.startswith("_")}  # any node may have those
                found |= {f"{node.op}({name})" for name in attributes - known[node.op]}
        if graph.versions.min_consumer > newest:
            found.add(f"graphs of version {graph.versions.min_consumer}")
    return sorted(found)


def warning(path: AnyPath) -> str:
    """A one-line warning of what the stock image lacks of a saved_model.pb; "" if nothing."""
    names = lacking(saved_model_pb2.SavedModel.FromString(path.read_bytes()))
    if not names:
        return ""
    version, shown = of_tf_serving()[0], [*names[:5], *([f"{len(names) - 5} more"] if len(names) > 5 else [])]
    return (
        f"warning: the image tensorflow/serving:{version} cannot serve this model: its TensorFlow has no {', '.join(shown)}; "
        "tfcq serve can, and so can an image of a newer release, if there is one"
    )


def _nodes(graph: graph_pb2.GraphDef) -> Iterator[node_def_pb2.NodeDef]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
