"""In mixed precision networks compute in half precision; densities, log-determinants and losses stay in float32."""

import dataclasses

import goldens
import pytest
import tensorflow as tf
import tiny_models as tiny

# What densities and losses are made of and networks are not.
OF_DENSITIES = {"Log", "Log1p", "Exp", "Expm1", "Softplus", "LogSoftmax", "Lgamma", "Erf", "Ndtri", "Square", "SquaredDifference"}
OF_DENSITIES |= {"Mean", "Prod", "Cumsum", "Rsqrt", "Pow"}


@pytest.mark.parametrize("name", ["cqf_residual_iaf", "glf", "vae_bijective_prior", "introvae"])
def test_densities_are_float32(name):
    golden = goldens.GOLDENS[name]
    training = dataclasses.replace(golden.config.training, precision="mixed_bfloat16")
    model = tiny.compiled(dataclasses.replace(golden.config, training=training), golden.channels)
    model.make_train_function()
    images = tiny.images(model.image_shape, golden.config.training.batch_size)
    graph = model.step_graph(iter(tf.data.Dataset.from_tensors(images)), 0).as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    half = {node.op for node in nodes if node.attr["T"].type == tf.bfloat16.as_datatype_enum}
    assert half & {"Conv2D", "MatMul"}, "the networks do not compute in half precision, so nothing is shown"
    assert not half & OF_DENSITIES
