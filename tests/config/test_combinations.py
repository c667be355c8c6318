"""Combinations of options that cannot work, and those beside them that can."""

import pytest
from config_cases import message_of

from tfcq import config as configs
from tfcq.config import SYSTEMS, Config, CQFConfig, DataConfig, GLFConfig, RealNVPConfig, TrainingConfig


@pytest.mark.parametrize(
    ("section", "options", "expected"),
    [
        (DataConfig, {"dataset": ""}, "dataset: expected a name"),
        (TrainingConfig, {"train_steps": 5, "warmup_steps": 5}, "expected fewer than train_steps=5, received 5"),
        (TrainingConfig, {"logical_devices": 2, "distribution": "none"}, "logical_devices=2 with distribution=none"),
        (CQFConfig, {"coverage": False, "quality_weight": 0, "flow_scales": 0}, "nothing to train"),
        (CQFConfig, {"coverage": False}, "coverage=false with flow_scales=1"),
        (RealNVPConfig, {"coverage": False}, "nothing to train"),
        (RealNVPConfig, {"coverage": False, "quality_weight": 1, "flow_magnitude_penalty": 0.5},
         "flow_magnitude_penalty=0.5 with coverage=false: the penalty is part of the likelihood's loss; expected 0"),
        (configs.RAEGMMConfig, {"mixture_images": 1}, "mixture_images: expected 0 (all of them) or at least 2, received 1"),
        (configs.VAEConfig, {"latent_dim": 1}, "latent_dim: expected at least 2"),
        (GLFConfig, {"regularized": True, "first_stage_steps": 3}, "regularized with first_stage_steps"),
        *(
            (TrainingConfig, {"learning_rate_drops": text}, f"expected FRACTION:FACTOR,... with fractions between 0 and 1 and "
             f"factors above 0 up to 1, received {text!r}")
            for text in ("0.5", "0.5:2", "1.0:0.5", "0:0.5", "0.5:0", "0.5:0.5:0.5", "half:0.5", "0.5:nan")
        ),
    ],
)
def test_combinations_that_cannot_work(section, options, expected):
    assert expected in message_of(section, **options)


def test_combinations_beside_those_are_fine():
    TrainingConfig(train_steps=5, warmup_steps=4)
    TrainingConfig(train_steps=1, warmup_steps=0)
    TrainingConfig(logical_devices=2, distribution="auto")
    CQFConfig(coverage=False, flow_scales=0)
    CQFConfig(quality_weight=0, flow_scales=3)
    RealNVPConfig(coverage=False, quality_weight=1)  # its flow is all there is to train


@pytest.mark.parametrize(
    ("image_size", "latent_size", "flow_scales"),
    [(4, 4, 0), (4, 8, 0), (24, 4, 0), (12, 8, 0), (36, 9, 3), (20, 5, 3)],
)
def test_image_sizes_that_cannot_be_halved(image_size, latent_size, flow_scales):
    data, system = DataConfig(image_size=image_size), CQFConfig(latent_size=latent_size, flow_scales=flow_scales)
    assert f"image_size={image_size}" in message_of(Config, data=data, system=system)


@pytest.mark.parametrize(
    ("image_size", "latent_size", "flow_scales"), [(8, 4, 1), (32, 4, 3), (20, 5, 2), (6, 3, 1), (1024, 1, 6)]
)
def test_image_sizes_that_can(image_size, latent_size, flow_scales):
    data, system = DataConfig(image_size=image_size), CQFConfig(latent_size=latent_size, flow_scales=flow_scales)
    assert Config(data=data, system=system).data.image_size == image_size


@pytest.mark.parametrize(
    ("network", "latent_levels", "most"), [("plain", 4, 3), ("residual", 5, 4), ("plain", 10, 3)]
)
def test_latents_need_a_resolution_each(network, latent_levels, most):
    def config(levels):
        return Config(system=CQFConfig(network=network, latent_levels=levels))

    assert f"latent_levels={latent_levels}: expected at most {most}" in message_of(config, latent_levels)
    assert config(most).system.latent_levels == most


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("glf", {"first_stage_steps": 9}),
        ("two_stage_vae", {"first_stage_steps": 9}),
        ("glann", {"first_stage_steps": 9}),
        ("wae_gan", {"pretraining_steps": 9}),
        ("wae_mmd", {"pretraining_steps": 9}),
        ("introvae", {"pretraining_steps": 9}),
        ("soft_introvae", {"pretraining_steps": 9}),
    ],
)
def test_a_first_stage_leaves_steps_to_the_next(model, options):
    system, (name,) = configs.SYSTEMS[model](**options), options
    message = message_of(Config, model, system=system, training=TrainingConfig(train_steps=9))
    assert message.startswith(f"{name}: expected fewer than train_steps=9") and message.endswith("received 9")
    assert Config(model, system=system, training=TrainingConfig(train_steps=10)).system == system


def test_a_vae_without_introspection_has_no_first_stage():
    system = configs.IntroVAEConfig(adversarial_weight=0.0)
    assert Config("introvae", system=system, training=TrainingConfig(train_steps=1)).system.pretraining_steps == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretraining_steps": 0}, "margin=auto with pretraining_steps=0: the margin follows from pre-training"),
        ({"margin": "a lot"}, "margin: expected auto or a number above 0, received 'a lot'"),
        ({"margin": "-1"}, "margin: expected auto or a number above 0, received '-1'"),
        ({"margin": "nan"}, "margin: expected auto or a number above 0, received 'nan'"),
        ({"adversarial_weight": 0.0, "generator_adversarial_weight": 0.5}, "generator_adversarial_weight=0.5 with adversarial_"),
    ],
)
def test_a_margin_is_a_number_or_found_by_pretraining(options, message):
    assert message_of(configs.IntroVAEConfig, **options).startswith(message)
    configs.IntroVAEConfig(pretraining_steps=0, margin="7.5")
    configs.IntroVAEConfig(pretraining_steps=0, adversarial_weight=0.0)  # a VAE has none


@pytest.mark.parametrize(("image_size", "fits"), [(32, True), (8, True), (4, False), (48, False)])
def test_introspective_networks_halve_images_down_to_four_pixels(image_size, fits):
    for model in ("introvae", "soft_introvae"):
        data = DataConfig(image_size=image_size)
        if fits:
            assert Config(model, data=data).model == model
        else:
            assert message_of(Config, model, data=data).startswith(f"image_size={image_size}: expected a power of two")


@pytest.mark.parametrize(
    ("model", "system", "message"),
    [
        ("wae_gan", {}, "micro_batches=2 with a Wasserstein auto-encoder: expected 1"),
        ("introvae", {"margin_form": "batch_mean"}, "micro_batches=2 with margin_form=batch_mean: expected micro_batches=1 or"),
        ("cqf", {"free_bits": 0.5}, "micro_batches=2 with free_bits=0.5: expected 1"),
        ("realnvp", {}, "micro_batches=2: expected a divisor of batch_size=9"),
    ],
)
def test_batches_are_cut_into_equal_parts_where_no_loss_looks_across_them(model, system, message):
    size = 9 if model == "realnvp" else 8
    values = {"model": model, "system": system, "training": {"batch_size": size, "micro_batches": 2}}
    assert message_of(Config.from_dict, values).startswith(message)


@pytest.mark.parametrize("model", ["wae_gan", "wae_mmd"])
def test_a_comparison_over_a_batch_needs_two_images(model):
    message = message_of(Config, model, training=TrainingConfig(batch_size=1))
    assert message.startswith("batch_size=1 with a Wasserstein auto-encoder: expected at least 2")
    assert Config(model, training=TrainingConfig(batch_size=2)).model == model


def test_densities_of_images_take_no_other_error_of_reconstructions():
    for model in ("vae", "vae_flow_prior", "vae_flow_posterior", "two_stage_vae"):
        values = {"model": model, "system": {"reconstruction": "perceptual"}}
        assert "unknown option 'reconstruction'" in message_of(Config.from_dict, values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate_floor": 0.1, "learning_rate_schedule": "linear"}, "expected at most learning_rate=0.002"),
        ({"learning_rate_floor": 1e-4}, "learning_rate_floor with learning_rate_schedule=constant: the rate never falls"),
        ({"learning_rate_decay": 0.9, "learning_rate_schedule": "cosine"}, "learning_rate_schedule=cosine: expected exponential"),
    ],
)
def test_a_rate_that_could_not_fall_as_told_is_refused(options, message):
    assert message in message_of(TrainingConfig, **options)
    TrainingConfig(learning_rate_floor=1e-4, learning_rate_drops="0.5:0.1")  # a drop falls


@pytest.mark.parametrize("options", [{"horizontal_flip": True}, {"random_translation": 0.1}])
def test_codes_of_training_images_allow_no_other_images(options):
    message = message_of(Config, "glann", data=DataConfig(**options))
    assert message.startswith(f"{next(iter(options))} with model=glann")


@pytest.mark.parametrize("model", ["glf", "vae", "wae_mmd", "two_stage_vae", "rae_gmm", "glann"])
def test_auto_encoders_halve_images_twice(model):
    assert "image_size=30: expected a multiple of 4" in message_of(Config, model, data=DataConfig(image_size=30))
    assert Config(model, data=DataConfig(image_size=28)).model == model


def test_a_discriminator_of_a_flow_halves_images():
    data = DataConfig(image_size=24)
    assert Config("realnvp", data, RealNVPConfig()).model == "realnvp"  # without one, any size that the flow can take
    message = message_of(Config, "realnvp", data, RealNVPConfig(quality_weight=1))
    assert "image_size=24 with discriminator_size=4" in message
    Config("realnvp", data, RealNVPConfig(quality_weight=1, discriminator_size=6))


def test_the_discriminator_of_a_cqf_halves_images_as_often_as_its_own_option_says():
    data = DataConfig(image_size=96)
    message = message_of(Config, "cqf", data, CQFConfig(latent_size=12, discriminator_size=9))
    assert "image_size=96 with discriminator_size=9: expected image_size = discriminator_size times 2, 4, 8, ..." in message
    for size in (0, 3, 48):  # 0: latent_size
        Config("cqf", data, CQFConfig(latent_size=12, discriminator_size=size))
    Config("cqf", data, CQFConfig(latent_size=12, discriminator_size=9, quality_weight=0))  # no discriminator


@pytest.mark.parametrize(
    ("model", "option", "before", "now"),
    [
        ("wae_gan", "reconstruction_weight", 1.0, 0.05),
        ("wae_mmd", "reconstruction_weight", 1.0, 0.05),
        ("two_stage_vae", "sigma_rate", 1.0, 10.0),
        ("vae", "sigma_rate", 1.0, 1.0),
        ("glann", "imle_batch_normalization", False, False),
    ],
)
def test_a_run_of_an_earlier_version_keeps_what_there_was_no_option_for(model, option, before, now):
    values = Config(model, DataConfig(image_size=28)).to_dict()
    del values["system"][option]
    assert getattr(Config.from_dict(values, of_a_run=True).system, option) == before
    assert getattr(Config.from_dict(values).system, option) == now
    values["system"][option] = 0.5 if before is not False else True
    assert getattr(Config.from_dict(values, of_a_run=True).system, option) == values["system"][option]


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ({"reconstruction": "perceptual"}, (1.0, 1.0)),  # before there was any weight
        ({"reconstruction": "perceptual", "reconstruction_weight": 0.25}, (0.25, 0.25)),
        ({"reconstruction": "perceptual", "reconstruction_weight": 0.25, "perceptual_error_weight": 3.0}, (0.25, 3.0)),
        ({"reconstruction": "mse", "reconstruction_weight": 0.25}, (0.25, 1.0)),
    ],
)
def test_a_perceptual_error_of_an_earlier_version_keeps_the_weight_of_either_error(values, weights):
    system = Config.from_dict({"model": "wae_gan", "data": {"image_size": 28}, "system": values}, of_a_run=True).system
    assert (system.reconstruction_weight, system.perceptual_error_weight) == weights


@pytest.mark.parametrize("model", ["cqf", "realnvp"])
@pytest.mark.parametrize(("scales", "factor"), [(1, 2), (2, 1), (3, 1)])
def test_a_run_of_an_earlier_version_keeps_the_width_of_its_channel_couplings(model, scales, factor):
    """They were as wide as checkerboards before there was the option; a flow of one scale has none."""
    values = Config(model, DataConfig(image_size=32), SYSTEMS[model](flow_scales=scales)).to_dict()
    del values["system"]["flow_channel_width_factor"]
    assert Config.from_dict(values, of_a_run=True).system.flow_channel_width_factor == factor
    assert Config.from_dict(values).system.flow_channel_width_factor == 2  # a configuration of today that leaves it out
    values["system"]["flow_channel_width_factor"] = 2
    assert Config.from_dict(values, of_a_run=True).system.flow_channel_width_factor == 2
