"""Floating-point operations of a graph: those of matrix products and convolutions, 2 for each multiply-add."""

from __future__ import annotations

import math
from collections.abc import Iterable

import tensorflow as tf

_PRODUCTS = {"MatMul", "BatchMatMulV2", "BatchMatMulV3", "BatchMatMul"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_LOOPS = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"}


def gflop(graph: tf.Graph) -> float | None:
    """10^9 operations of one run of `graph`, a function's, and of the functions that it calls.

    Only what its results or its side effects need is counted, as only that is computed.

    None if a shape is unknown, or if they are in a loop or a branch, whose number of runs the graph does not tell.
    """
    total = 0.0
    for one in _needed(graph):
        found = _of(one, graph)
        if found is None:
            return None
        total += found
    return total


def _needed(graph):
    """The operations from which the results and the side effects of a function's graph follow."""
    left = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    found = set(left)
    while left:
        one = left.pop()
        more = {tensor.op for tensor in one.inputs}.union(one.control_inputs) - found
        found |= more
        left += more
    return found


def _of(one: tf.Operation, graph: tf.Graph) -> float | None:
    """The 10^9 operations of an operation of a graph; None: unknown."""
    kind, shapes = one.type, [tensor.shape for tensor in one.inputs]
    if kind in _CALLS:
        return gflop(graph._get_function(one.get_attr("f").name).graph)
    if kind in _LOOPS:
        names = [attribute.name for key in ("cond", "body", "then_branch", "else_branch") for attribute in _attribute(one, key)]
        inside = [gflop(graph._get_function(name).graph) for name in names]
        return 0.0 if all(value == 0.0 for value in inside) else None
    if kind in _PRODUCTS:
        transposed = any(_attribute(one, key)[:1] == [True] for key in ("transpose_a", "adj_x"))
        inner = shapes[0][-2 if transposed else -1]
        return _gflop(one.outputs[0].shape, [inner])
    if kind == "Conv2D":
        return _gflop(one.outputs[0].shape, shapes[1][:3])
    if kind == "Conv2DBackpropInput":
        return _gflop(shapes[2], shapes[1][:3])
    if kind == "Conv2DBackpropFilter":
        return _gflop(shapes[2], one.outputs[0].shape[:3])
    return 0.0


def _attribute(one, key):
    """[the value of an attribute]; [] if the operation has no such attribute."""
    try:
        return [one.get_attr(key)]
    except ValueError:
        return []


def _gflop(outputs: tf.TensorShape, products_of_each: Iterable[int | None]) -> float | None:
    sizes = [*outputs, *products_of_each] if outputs.rank is not None else [None]
    known = [size for size in sizes if size is not None]
    return 2.0 * math.prod(known) / 1e9 if len(known) == len(sizes) else None
