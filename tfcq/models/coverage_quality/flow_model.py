"""What CQF and RealNVP share: a flow between images and features, and two losses, of a likelihood and of a discriminator.

An image x8 becomes pixels v = x8 + u, u ~ U[0, 1); l = logit(0.05 + 0.9 v / 256); features y = f(l), with f the image ->
feature direction of a RealNVP. What features are like is the system's. Each loss may be left out.
"""

from tfcq import images as units
from tfcq.distributions.pixels import pixel_bijector
from tfcq.engine.players import Objective, Player
from tfcq.flows.image_flow import ImageFlow
from tfcq.models.base import GenerativeModel
from tfcq.models.coverage_quality import adversary
from tfcq.networks.convolutions import data_dependent_initialization

DEQUANTIZATION, LATENT = 0, 1
"""Tags of the draws; a system with several latents numbers them from LATENT on."""


class FlowModel(GenerativeModel):
    """A system offers `coverage_loss`, `generate_features`, and who feels which loss, besides what `GenerativeModel` asks for.

    Args:
        config: `AdversaryOptions` and `FlowOptions` of the system.
        image_shape: (H, W, C).
        smallest_size: side at which the discriminator stops halving images, in pixels.
        seed: of the weights and of the noise of training.
        name: of the model.
    """

    def __init__(self, config, image_shape, smallest_size, seed, name):
        super().__init__(image_shape, seed, name)
        self.config = config
        self.flow = ImageFlow.of(config, seed)
        self.flow.build((None, *self.image_shape))
        self.discriminator = None
        if config.quality_weight:
            self.discriminator = adversary.build(config, self.image_shape, smallest_size)

    # What a system offers.

    def coverage_loss(self, images, noise, shared):
        """L_C: an objective's loss, nats per image."""
        raise NotImplementedError

    def coverage_variables(self):
        """The variables that L_C trains."""
        raise NotImplementedError

    def quality_variables(self):
        """The variables that L_Q trains; what it only passes through is not among them."""
        raise NotImplementedError

    def generate_features(self, noise):
        """Features of generated images, float32 [N, H, W, C], in training."""
        raise NotImplementedError

    def initialize_networks(self, features):
        """Runs the networks besides the flow once on `features` of real images, eagerly: weight-normalised layers set
        themselves by what they see; nothing by default."""

    # What follows from it.

    @property
    def transform(self):
        """A fresh bijector from the flow's images to pixels; not stored, as TFP's bijectors remember tensors."""
        return pixel_bijector(self.config.pixel_transform)

    def players(self):
        players, objectives = [], []
        if self.config.coverage:
            objectives.append(Objective(self.coverage_loss, self.coverage_variables()))
        if self.discriminator:
            discriminator = Objective(self._discriminator_loss, self.discriminator.trainable_variables)
            players.append(Player("discriminator", [discriminator], turns=self.config.discriminator_steps))
            objectives.append(Objective(self._quality_loss, self.quality_variables()))
        return [*players, Player("generator", objectives)]

    def initialize(self, images):
        """Data-dependent initialisation on uint8 [N, H, W, C]: ActNorm layers of the flow, weight-normalised networks."""
        pixels = units.dequantize(images, 0.5)
        features = self.flow.initialize(self.transform.inverse(pixels))
        if self.config.data_dependent_initialization:
            with data_dependent_initialization():
                self.initialize_networks(features)
                if self.discriminator:
                    self.discriminator(units.to_network_range(pixels))

    def share(self, images, noise, kept=None):
        """The generated images of a step, float32 [N, H, W, C] around [-1, 1]."""
        return units.to_network_range(self.pixels(self.generate_features(noise))) if self.discriminator else ()

    def features(self, images, noise, training=False):
        """Features y of dequantised images, float32 [N, H, W, C], and log|det dy/dv|, [N], nats."""
        pixels = units.dequantize(images, noise.uniform(self.image_shape, DEQUANTIZATION))
        transform = self.transform
        features, log_det = self.flow.inverse_and_log_det(transform.inverse(pixels), training=training)
        return features, log_det + transform.inverse_log_det_jacobian(pixels, event_ndims=3)

    def pixels(self, features):
        """Pixels, float32, near [0, 256), of features; trains nothing and updates nothing in the flow by itself."""
        unbounded, _ = self.flow.forward_and_log_det(features, training=False)
        return self.transform.forward(unbounded)

    def _quality_loss(self, images, noise, shared):
        return adversary.quality_terms(self.config, self.discriminator, shared, self.step.value)

    def _discriminator_loss(self, images, noise, shared):
        return adversary.discriminator_terms(self.config, self.discriminator, images, shared, noise)
