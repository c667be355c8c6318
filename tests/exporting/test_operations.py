"""What TF Serving's stock image lacks of an export, by graphs of a few nodes; tests/conformance looks at every golden."""

import re

import pytest
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfcq.exporting import operations


def saved_model(*nodes, inside=(), min_consumer=12):
    """A SavedModel of nodes (operation, attributes), some `inside` a function called `own`."""
    made = saved_model_pb2.SavedModel()
    graph = made.meta_graphs.add().graph_def
    graph.versions.min_consumer = min_consumer
    function = graph.library.function.add()
    function.signature.name = "own"
    for place, kinds in ((graph.node, nodes), (function.node_def, inside)):
        for operation, *attributes in kinds:
            node = place.add(op=operation, name=operation)
            for name in attributes:
                node.attr[name].CopyFrom(attr_value_pb2.AttrValue(b=True))
    return made


@pytest.mark.parametrize("changes, expected", [
    ({}, []),
    ({"inside": [("Cos", "T")]}, []),
    ({"inside": [("Cosine", "T")]}, ["Cosine"]),
    ({"inside": [("Cos", "T", "precise")]}, ["Cos(precise)"]),
    ({"inside": [("Cos", "T", "_noinline")]}, []),  # any node may have it
    ({"inside": [("PyFunc", "token")]}, ["PyFunc"]),
    ({"min_consumer": 99999}, ["graphs of version 99999"]),
], ids=str)
def test_what_the_stock_image_lacks(changes, expected, tmp_path):
    made = saved_model(("MatMul", "T", "transpose_a"), ("own",), ("VarHandleOp", "shape"), **changes)
    assert operations.lacking(made) == expected
    path = tmp_path / "saved_model.pb"
    path.write_bytes(made.SerializeToString())
    line = operations.warning(path)
    assert "\n" not in line and bool(line) == bool(expected) and all(name in line for name in expected)


def test_many_are_counted(tmp_path):
    path = tmp_path / "saved_model.pb"
    path.write_bytes(saved_model(*[(f"New{number}",) for number in range(8)]).SerializeToString())
    assert "has no New0, New1, New2, New3, New4, 3 more;" in operations.warning(path)


def test_the_list_is_of_the_image_that_the_files_of_serving_name():
    compose = operations.LIST.parents[2] / "serving" / "docker-compose.yml"
    version, graph_def_version, known = operations.of_tf_serving()
    assert re.search(r"tensorflow/serving:\$\{TF_SERVING_VERSION:-(.*)\}", compose.read_text())[1] == version
    assert graph_def_version > 1000 and len(known) > 1000
    assert known["Conv2D"] == {
        *("T", "strides", "use_cudnn_on_gpu", "padding", "explicit_paddings", "data_format", "dilations")
    }
