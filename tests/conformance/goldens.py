"""One small configuration of every kind of model: what is registered here is tested by the whole conformance suite.

A new system adds its goldens to `GOLDENS`, at least one whose `config.model` is its name, and nothing else.
"""

import dataclasses

import tiny_models as tiny

import tfcq


@dataclasses.dataclass(frozen=True)
class Golden:
    """What is tested.

    Attributes:
        config: the configuration.
        channels: of its images.
        resting: how names of weights end that need not move at once.
        steps: as many as reach every stage of training.
        attached: how names of weights end that `attach` makes: they are needed in training alone.
    """

    config: tfcq.Config
    channels: int = 1
    resting: tuple = ()
    steps: int = 2
    attached: tuple = ()


_ALL_BATCH_NORMALIZATIONS = {
    "network_normalization": "batch",
    "flow_normalization": "batch",
    "flow_conditioner_batch_normalization": True,
}

GOLDENS = {
    "cqf": Golden(tiny.config()),
    "cqf_gan": Golden(tiny.config(network_normalization="batch", **tiny.ROWS["gan"])),
    "cqf_vae_vector": Golden(tiny.config(latent_form="vector", pixel_transform="affine", **tiny.ROWS["vae"])),
    "cqf_cq_rgb": Golden(tiny.config(discriminator_steps=2, **tiny.ROWS["cq"]), channels=3),
    # A batch normalisation divides out the magnitude of the convolution before it, whose gradient is nearly zero.
    "cqf_two_scales_batch": Golden(
        tiny.config(flow_scales=2, flow_couplings=1, flow_blocks=0, **_ALL_BATCH_NORMALIZATIONS),
        resting=("conditioner/first/magnitude",),
    ),
    "cqf_ladder": Golden(
        tiny.config(
            8,
            latent_blocks=2,
            free_bits=0.02,
            generator_loss="non_saturating",
            gradient_penalty_form="real",
            quality_ramp_steps=4,
            flow_couplings=1,
        ),
    ),
    # Without a flow of images, which others have: its graph is large enough.
    "cqf_residual_iaf": Golden(
        tiny.config(
            network="residual",
            network_normalization="weight",
            posterior="iaf",
            iaf_layers=1,
            discriminator_network="residual",
            discriminator_weight_normalization=True,
            generator_loss="saturating",
            gradient_penalty_form="one_sided",
            flow_scales=0,
        ),
        channels=3,
    ),
    "cqf_classes": Golden(
        tiny.config(class_conditional=True, flow_scales=1, flow_couplings=1, flow_blocks=0, discriminator_steps=2)
    ),
    "realnvp": Golden(tiny.config(model="realnvp", flow_couplings=1)),
    "realnvp_flow_gan": Golden(
        tiny.config(model="realnvp", quality_weight=2.0, flow_normalization="batch", flow_scales=1), channels=3
    ),
    "glf": Golden(tiny.config(model="glf", regularized=True)),
    "glf_classes": Golden(tiny.config(model="glf", class_conditional=True)),
    "glf_two_stages": Golden(
        tiny.config(8, model="glf", first_stage_steps=2, latent_flow_optimizer="own", autoencoder_network="dcgan"),
        channels=3, steps=4,
    ),  # fmt: skip
    "vae": Golden(tiny.config(model="vae")),
    "vae_learned_scale": Golden(tiny.config(model="vae", learn_decoder_sigma=True, training={"ema_decay": 0.9}), channels=3),
    # A weight-normalised kernel of one entry has a direction without a gradient: a narrow attention's.
    "vae_bijective_prior": Golden(tiny.config(16, model="vae_bijective_prior"), resting=("gates/direction",)),
    # Its prior has one scale, the VAE's two: of all graphs its are the slowest to trace.
    "srvae": Golden(
        tiny.config(8, model="srvae", prior_scales=1, training={"ema_decay": 0.9}), channels=3, resting=("gates/direction",)
    ),
    # 8 pixels: with 16 an element whose gradient is zero up to rounding, of which Adamax takes the sign, shows. The weight keeps
    # gradients, and with them their rounding, small beside the tolerance of two replicas.
    "introvae": Golden(
        tiny.config(8, model="introvae", reconstruction_weight=0.05, training={"ema_decay": 0.9}), channels=3, steps=3
    ),
    "soft_introvae": Golden(
        tiny.config(
            8, model="soft_introvae", network_normalization="none", recompute_gradients=True, training={"micro_batches": 2}
        ),
        steps=3,
    ),
    "introvae_group": Golden(
        tiny.config(8, model="introvae", reconstruction_weight=0.05, network_normalization="group"), steps=3
    ),
    "vae_flow_prior": Golden(tiny.config(model="vae_flow_prior")),
    "vae_flow_posterior": Golden(
        tiny.config(model="vae_flow_posterior", latent_flow_optimizer="own", latent_flow_normalization="batch")
    ),
    "wae_gan": Golden(tiny.config(model="wae_gan"), steps=3),
    "wae_mmd": Golden(tiny.config(model="wae_mmd"), steps=3),
    "two_stage_vae": Golden(tiny.config(model="two_stage_vae", first_stage_steps=2), steps=4),
    "rae_gmm": Golden(tiny.config(model="rae_gmm", training={"ema_decay": 0.9})),
    "glann": Golden(
        tiny.config(model="glann", first_stage_steps=2, imle_batch_normalization=True, training={"ema_decay": 0.9}), steps=5,
        attached=("codes", "matched_noise"),
    ),
}

LONG = {
    "test_two_replicas_take_the_step_of_one": {
        *("srvae", "introvae", "soft_introvae", "vae_bijective_prior", "cqf_two_scales_batch", "cqf_residual_iaf"),
        *("vae_flow_prior", "vae_flow_posterior", "wae_mmd", "two_stage_vae", "wae_gan", "cqf_classes"),
    },
    # The signatures that classes give are those of glf_classes, too.
    "test_a_saved_model_answers_as_the_live_one": {
        *("srvae", "soft_introvae", "cqf_two_scales_batch", "cqf_residual_iaf", "cqf_classes"),
        *("realnvp", "vae_flow_prior", "vae_flow_posterior", "two_stage_vae", "wae_mmd"),
    },
}
"""By test, the goldens whose graphs take long to trace and whose parts others have: proved with `tools/test -m long`."""

VARIANTS = {"cqf_vae_vector", "cqf_cq_rgb", "cqf_ladder", "realnvp_flow_gan", "glf_two_stages", "vae_learned_scale"}
VARIANTS |= {"introvae_group"}
"""Goldens whose parts other goldens and the rows of the paper's tables have, too: proved with `tools/test -m long`."""
