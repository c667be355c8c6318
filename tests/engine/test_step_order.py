"""The graph that runs keeps the order of a step: no read of a weight may race with its update."""

import collections

import pytest
import tensorflow as tf
import tiny_models as tiny
from tensorflow.python.eager import context

WRITES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", "ResourceApplyAdam", "ResourceApplyAdaMax"}


def ancestors(sources, name):
    """Names of all nodes that must run before `name`; `sources` has those of each node that it waits for at once."""
    found, waiting = set(), [name]
    while waiting:
        more = sources[waiting.pop()] - found
        found |= more
        waiting += more
    return found


def unordered_accesses(graph):
    """Pairs (write, other access) of one variable in a GraphDef of which neither must run before the other."""
    nodes = {node.name: node for node in graph.node}
    sources = {
        node.name: {source.lstrip("^").split(":")[0] for source in node.input} & nodes.keys() for node in graph.node
    }
    accesses = collections.defaultdict(list)
    for node in graph.node:
        for source in node.input:
            source = source.split(":")[0]
            if source in nodes and nodes[source].op == "_Arg":
                accesses[source].append(node.name)
    pairs, writes = [], 0
    for names in accesses.values():
        before = {name: ancestors(sources, name) for name in names} if len(names) > 1 else {}
        for write in names:
            if nodes[write].op not in WRITES:
                continue
            writes += 1
            pairs += [
                (write, other)
                for other in names
                if other != write and write not in before[other] and other not in before[write]
            ]
    return pairs, writes


OPTIONS = {
    "cqf": {"network_normalization": "batch"},
    "cqf-residual-iaf": {
        "network": "residual",
        "network_normalization": "weight",
        "posterior": "iaf",
        "training": {"ema_decay": 0.9},
    },
    "realnvp": {"model": "realnvp", "quality_weight": 1.0, "flow_normalization": "batch"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cqf-residual-iaf", pytest.param("cqf", marks=pytest.mark.long), pytest.param("realnvp", marks=pytest.mark.long)]
)
def test_the_optimised_graph_of_a_step_keeps_every_order(name):
    """TensorFlow's dependency optimizer drops such orders from a graph of this size (8,000 nodes); not from a tiny one's."""
    options = {"flow_width": 8, "flow_couplings": 3, "flow_blocks": 2} | OPTIONS[name]
    model = tiny.compiled(tiny.config(32, **options), channels=3)
    step = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(tiny.images((32, 32, 3), 8)).repeat())
    context.enable_graph_collection()
    try:
        step(batches)
        graphs = context.export_run_metadata().partition_graphs
    finally:
        context.disable_graph_collection()
    graph = max(graphs, key=lambda graph: len(graph.node))
    pairs, writes = unordered_accesses(graph)
    assert writes > 200
    assert not pairs
