"""The optimizer of its own that a flow of latents may have.

In the code of Xiao et al. (2019) Adam updates the flow with decays of 0.8 and 0.9, and the auto-encoder with PyTorch's defaults.
"""

from tfcq.config.groups import LatentFlowOptions
from tfcq.engine.players import OptimizerGroup
from tfcq.flows.latent_flow import LatentFlow


def optimizer_groups(flow: LatentFlow, options: LatentFlowOptions) -> tuple[OptimizerGroup, ...]:
    """The groups of the player that trains `flow`: one, "flow", if `options` ask for an optimizer of its own; else none."""
    if options.latent_flow_optimizer != "own":
        return ()
    betas = options.latent_flow_beta_1, options.latent_flow_beta_2
    rate = options.latent_flow_learning_rate or None
    return (OptimizerGroup("flow", flow.trainable_variables, "latent_flow_optimizer=own", rate, betas),)
