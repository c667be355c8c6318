"""A Config as Python makes it: what follows from what, NumPy scalars and paths, and how it prints."""

import copy
import dataclasses
import pathlib
import pickle

import numpy as np
import pytest

from tfcq import config as configs
from tfcq.config import Config, DataConfig, TrainingConfig
from tfcq.errors import UserError


def message_of(call, *arguments, **options):
    with pytest.raises(UserError) as raised:
        call(*arguments, **options)
    return str(raised.value)


def test_the_model_follows_from_the_system():
    assert Config(system=configs.GLFConfig(latent_dim=5)) == Config("glf", system=configs.GLFConfig(latent_dim=5))
    assert Config().model == "cqf" and Config(data=DataConfig()).system == configs.CQFConfig()
    assert message_of(Config, system="glf").startswith("system: expected one of CQFConfig, RealNVPConfig, ")
    said = message_of(Config, "glf", system=configs.VAEConfig())
    assert said == "system: expected GLFConfig with model=glf, received VAEConfig"


def test_numpy_scalars_and_paths_are_taken():
    training = TrainingConfig(train_steps=np.int64(5), learning_rate=np.float32(0.5), jit_compile=np.bool_(True))
    assert training == TrainingConfig(train_steps=5, learning_rate=0.5, jit_compile=True)
    assert type(training.train_steps) is int and type(training.jit_compile) is bool
    assert DataConfig(data_dir=pathlib.Path("/data")) == DataConfig(data_dir="/data")
    assert message_of(TrainingConfig, train_steps=np.float64(5.5)).startswith("train_steps: expected int, received")
    assert message_of(TrainingConfig, train_steps=np.array([5])).startswith("train_steps: expected int, received")


def test_a_section_shows_what_is_not_the_default():
    assert repr(configs.GLFConfig()) == "GLFConfig()"
    assert repr(configs.GLFConfig(latent_dim=5)) == "GLFConfig(latent_dim=5)"
    config = Config(system=configs.GLFConfig(latent_dim=5), data=DataConfig(dataset="cifar10"))
    assert eval(repr(config), vars(configs)) == config


def test_an_unknown_option_is_named_with_the_nearest():
    assert message_of(DataConfig, img_size=8) == "DataConfig: unknown option 'img_size' (did you mean image_size?)"
    assert message_of(Config, dataset="digits") == "Config: unknown option 'dataset' (did you mean data?)"
    assert message_of(configs.GLFConfig, latent_dims=2) == "GLFConfig: unknown option 'latent_dims' (did you mean latent_dim?)"
    config = Config(system=configs.GLFConfig(latent_dim=5))
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == dataclasses.replace(config) == config
