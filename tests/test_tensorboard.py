"""TensorBoard's files: names and tags, what is read of them, and the tab of hyperparameters."""

import struct
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from tfcq import workdir as workdirs
from tfcq.workdir.tensorboard import name_of, tag_of


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("generator/loss", "loss/generator/loss"),
        ("encoder/gradient_norm", "optimizer/encoder/gradient_norm"),
        ("encoder/learning_rate", "optimizer/encoder/learning_rate"),
        ("elbo_bits_per_dim", "density/elbo_bits_per_dim"),
        ("elbo_bits_per_dim of svhn", "density/elbo_bits_per_dim of svhn"),
        ("elbo/kl/0", "density/elbo/kl/0"),
        ("first_stage_elbo_nats", "density/first_stage_elbo_nats"),
        ("importance_weighted_bits_per_dim/K=50", "density/importance_weighted_bits_per_dim/K=50"),
        ("latent_log_prob", "density/latent_log_prob"),
        ("encoder/kl_real", "players/encoder/kl_real"),
        ("imle/distinct_noises", "players/imle/distinct_noises"),
        ("images_per_second", "time/images_per_second"),
        ("fd_pixels", "evaluation/fd_pixels"),
        ("test/fd_pixels", "evaluation/test/fd_pixels"),
        ("energy_auroc", "evaluation/energy_auroc"),
    ],
)
def test_a_scalar_is_shown_in_a_group_and_keeps_its_name(name, tag):
    assert tag_of(name) == tag
    assert name_of(tag) == name == name_of(name)  # an earlier version's tags are the names


def scalars_of(folder):
    return {name: [(point.step, point.value) for point in points] for name, points in workdirs.read_scalars(folder).items()}


def test_scalars_are_read_without_the_pictures_between_them(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3)).astype(np.uint8)
    writer = tf.summary.create_file_writer(str(tmp_path))
    for step in range(8):
        with writer.as_default(step):
            tf.summary.scalar("density/elbo_nats", -2.0 * step)
            tf.summary.image("grids/samples", noise)
            tf.summary.image("grids/small", noise[:, :4, :4])
            tf.summary.text("configuration", "of a few words")
    writer.close()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size > 6e6
    scalars_of(tmp_path)  # imports are not counted
    tracemalloc.start()
    found = scalars_of(tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {"elbo_nats": [(step, -2.0 * step) for step in range(8)]}
    assert most < 3e5  # a picture has 786,432 bytes


def test_a_file_that_is_being_written_is_read_up_to_its_last_whole_event(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    for step in range(3):
        with writer.as_default(step):
            tf.summary.scalar("loss", float(step))
    writer.close()
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    assert scalars_of(tmp_path) == {"loss": [(0, 0.0), (1, 1.0)]}
    path.write_bytes(content + struct.pack("<QI", 10**9, 0) + b"a picture that has just begun")
    assert scalars_of(tmp_path) == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert scalars_of(tmp_path / "nowhere") == {}


def test_scalars_in_the_form_of_tensorflow_1_are_read(tmp_path):
    with tf.Graph().as_default():
        writer = tf.compat.v1.summary.FileWriter(str(tmp_path))
        value = tf.compat.v1.Summary.Value(tag="generator/loss", simple_value=1.5)
        writer.add_summary(tf.compat.v1.Summary(value=[value]), 7)
        writer.close()
    assert scalars_of(tmp_path) == {"generator/loss": [(7, 1.5)]}


def write_metric(folder, tag, values):
    writer = workdirs.event_writer(folder)
    with writer.as_default():
        for step, value in enumerate(values):
            tf.summary.scalar(tag, value, step)
    writer.close()


def test_the_tab_of_hyperparameters_compares_the_runs_of_a_folder(tmp_path):
    """As TensorBoard's own server answers its page."""
    for name, rate, bits in (("a", 0.125, 5.0), ("b", 0.25, 4.0)):
        config = tiny.config(8, training={"learning_rate": 0.5}, latent_size=4)
        workdirs.describe(tmp_path / name, config)
        config = tiny.config(8, training={"learning_rate": rate}, latent_size=4)
        workdirs.describe(tmp_path / name, config)  # of a run that is resumed
        assert len([*(tmp_path / name / "tensorboard").iterdir()]) == 1
        write_metric(tmp_path / name / "tensorboard" / "validation", "density/elbo_bits_per_dim", [9.0, bits])
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    server = backend_context.Context(base_plugin.TBContext(data_provider=provider, logdir=str(tmp_path)))
    asked = api_pb2.ListSessionGroupsRequest(slice_size=10, include_metrics=True, allowed_statuses=[0, 1, 2, 3])
    groups = list_session_groups.Handler(context.RequestContext(), server, "", asked).run().session_groups
    assert len(groups) == 2
    found = {}
    for group in groups:
        (metric,) = group.metric_values
        assert (metric.name.group, metric.name.tag) == ("validation", "density/elbo_bits_per_dim")
        found[group.hparams["training.learning_rate"].number_value] = metric.value
        assert group.hparams["model"].string_value == "cqf" and group.hparams["training.train_steps"].number_value
        assert not any("dir" in name or "log_every" in name for name in group.hparams)  # they decide no number
    assert found == {0.125: 5.0, 0.25: 4.0}


def test_the_configuration_as_text_marks_what_is_no_default(tmp_path):
    config = tiny.config(8, data={"dataset": "folder:/x/<b>|_y_"}, training={"batch_size": 77}, latent_size=4)
    workdirs.describe(tmp_path, config)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (text,) = accumulator.Tensors("configuration")
    lines = tf.make_ndarray(text.tensor_proto).item().decode().splitlines()
    assert lines[:4] == ["`--model=cqf`", "", "| option | value | default |", "|---|---|---|"]
    assert "| training.batch_size | **77** | 64 |" in lines and "| data.center_crop | 0 |  |" in lines
    assert any(line.startswith(r"| data.dataset | **folder:/x/\<b\>\|\_y\_**") for line in lines)
