"""The base class of all flow layers, and the chain of several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.bijector import FlowBijector

ImageShape = tuple[int, int, int]
"""(H, W, C) of an image or of its features."""

ImagesShape = tuple[int | None, int, int, int]
"""(N, H, W, C) of a batch; N may be unknown."""


class Flow(keras.layers.Layer):
    """A bijection between features and images, with the log-determinant of its Jacobian.

    The direction is TFP's: **forward** takes features (or latents) to images, **inverse** takes images to features. A
    flow is a Keras layer that owns its weights; `training` affects only normalisations, never the direction.

    To write a flow, subclass and define

      * `_inverse_and_log_det(images, training) -> (features, log_det)`,
      * `_forward_and_log_det(features, training) -> (images, log_det)`,
      * `build(images_shape)`, with `(N, H, W, C)` and an N that may be None, if there are weights
        (`add_transform_weight`) or inner layers (build them here, so that they are named and tracked),
      * `features_shape` and `images_shape`, if the two differ,
      * `initialize`, if a batch of images can set the first weights.

    Both directions receive checked tensors of `transform_dtype` and must return tensors of that dtype. Each computes its
    output and its log-determinant together, so that a network inside runs once. Log-determinants are `[N]`, in nats.

    The transform is always computed in float32 (float64 if that is the layer's dtype): a mixed-precision policy
    affects only the networks inside.

    A flow whose map depends on a condition, such as an image's class, sets `takes_condition`, and both methods take it as
    `condition`, after `training`; a flow of other flows hands it on.

    Args:
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    takes_condition = False
    """Whether `_inverse_and_log_det` and `_forward_and_log_det` have an argument `condition`."""

    def __init__(self, **kwargs: Any):
        # No autocast: a policy must cast neither the images nor the transform's weights to half precision.
        super().__init__(autocast=False, **kwargs)

    @property
    def transform_dtype(self) -> str:
        """The dtype of the transform and of its log-determinants: "float64" if the layer's is, else "float32"."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def add_transform_weight(
        self, name: str, shape: tuple[int, ...], initializer: str = "zeros", **kwargs: Any
    ) -> keras.Variable:
        """Adds a weight of `transform_dtype`, which is never cast, whatever autocast scope surrounds the call."""
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, dtype=self.transform_dtype, autocast=False, **kwargs
        )

    # AutoGraph has nothing to convert here; it would slow tracing down and wrap every UserError.
    @tf.autograph.experimental.do_not_convert
    def inverse_and_log_det(
        self, images: tf.Tensor, training: bool = False, condition: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Images to features.

        Args:
            images: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`. H, W and C must be known.
            training: whether normalisations use the statistics of this batch and update the moving ones.
            condition: `[N, condition_size]`, on which the flow depends; None: an unconditional flow, or no condition.

        Returns:
            `features`, `[N, *features_shape]`, and `log_det`, `[N]`, nats: `log |d features / d images|`.

        Raises:
            UserError: `images` has another shape.
        """
        images = self._checked(images, "images")
        if not self.built:
            self.build(tuple(images.shape))
        with tf.name_scope(f"{self.name}_inverse"):
            return self._inverse_and_log_det(images, training, **self._given(condition))

    @tf.autograph.experimental.do_not_convert
    def forward_and_log_det(
        self, features: tf.Tensor, training: bool = False, condition: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Features to images. Changes no weight and uses no batch statistics, whatever `training` is.

        Args:
            features: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`. H, W and C must be known.
            training: accepted for symmetry; sampling always uses the moving statistics.
            condition: as for `inverse_and_log_det`.

        Returns:
            `images`, `[N, *images_shape]`, and `log_det`, `[N]`, nats: `log |d images / d features|`.

        Raises:
            UserError: `features` has another shape.
        """
        features = self._checked(features, "features")
        if not self.built:
            self.build((None, *self.images_shape(tuple(features.shape[1:]))))
        with tf.name_scope(f"{self.name}_forward"):
            return self._forward_and_log_det(features, training, **self._given(condition))

    def call(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Calling a flow as a Keras layer calls `inverse_and_log_det`."""
        return self.inverse_and_log_det(images, training)

    def initialize(self, images: tf.Tensor) -> tf.Tensor:
        """Data-dependent initialisation: sets weights from a batch. Call it eagerly, once, before training.

        Args:
            images: `[N, H, W, C]`, a batch of the flow's training data.

        Returns:
            The features of these images under the initialised weights.

        Raises:
            UserError: called within a `tf.function`.
        """
        return self.inverse_and_log_det(self._checked_eager(images), training=False)[0]

    def features_shape(self, images_shape: ImageShape) -> ImageShape:
        """The features' `(H, W, C)` for images of `(H, W, C)`."""
        height, width, channels = images_shape
        return height, width, channels

    def images_shape(self, features_shape: ImageShape) -> ImageShape:
        """The images' `(H, W, C)` for features of `(H, W, C)`."""
        height, width, channels = features_shape
        return height, width, channels

    def bijector(self, training: bool = False, condition: tf.Tensor | None = None) -> FlowBijector:
        """A fresh `tfb.Bijector` over this layer, given the condition; see `FlowBijector`. Do not store it."""
        return FlowBijector(self, training=training, condition=condition)

    def _given(self, condition):
        return {"condition": condition} if self.takes_condition else {}

    def _inverse_and_log_det(self, images, training):
        raise NotImplementedError(f"{type(self).__name__} does not define _inverse_and_log_det")

    def _forward_and_log_det(self, features, training):
        raise NotImplementedError(f"{type(self).__name__} does not define _forward_and_log_det")

    def _checked_eager(self, images):
        """The images for `initialize`, checked and cast; builds the layer if necessary."""
        if not tf.executing_eagerly():
            raise UserError(f"{self.name}.initialize assigns weights once: call it eagerly, outside of tf.function")
        images = self._checked(images, "images")
        if not self.built:
            self.build(tuple(images.shape))
        return images

    def _checked(self, value, name):
        value = tf.cast(tf.convert_to_tensor(value), self.transform_dtype)
        if value.shape.rank != 4 or None in tuple(value.shape[1:]):
            raise UserError(
                f"{self.name} takes {name} of shape [N, H, W, C] with H, W and C known, got {value.shape}: "
                "reshape them, or tf.ensure_shape them"
            )
        return value


class Chain(Flow):
    """Several flows, one after the other.

    They are listed in the order in which the inverse, from images to features, applies them, as in `tfb.Chain`. An
    empty chain is the identity and has no weights.

    Args:
        flows: the flows.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    takes_condition = True

    def __init__(self, flows: Iterable[Flow], **kwargs: Any):
        super().__init__(**kwargs)
        self.flows = list(flows)
        # tf.train.Checkpoint follows attributes; it silently leaves out layers that are only in a list on a Keras layer.
        for index, flow in enumerate(self.flows):
            setattr(self, f"flow_{index}", flow)

    def build(self, images_shape: ImagesShape) -> None:
        """Builds every flow for the shape of its inputs."""
        batch, shape = images_shape[0], images_shape[1:]
        for flow in self.flows:
            if not flow.built:
                flow.build((batch, *shape))
            shape = flow.features_shape(shape)

    def initialize(self, images: tf.Tensor) -> tf.Tensor:
        """Initialises each flow from the features of the previous ones, which are initialised before it."""
        images = self._checked_eager(images)
        for flow in self.flows:
            images = flow.initialize(images)
        return images

    def features_shape(self, images_shape: ImageShape) -> ImageShape:
        """The `(H, W, C)` of the last flow's features."""
        for flow in self.flows:
            images_shape = flow.features_shape(images_shape)
        return super().features_shape(images_shape)

    def images_shape(self, features_shape: ImageShape) -> ImageShape:
        """The `(H, W, C)` of the first flow's images."""
        for flow in reversed(self.flows):
            features_shape = flow.images_shape(features_shape)
        return super().images_shape(features_shape)

    def _inverse_and_log_det(self, images, training, condition=None):
        total = zero_log_det(images)
        for flow in self.flows:
            images, log_det = flow.inverse_and_log_det(images, training, condition)
            total += log_det
        return images, total

    def _forward_and_log_det(self, features, training, condition=None):
        total = zero_log_det(features)
        for flow in reversed(self.flows):
            features, log_det = flow.forward_and_log_det(features, training, condition)
            total += log_det
        return features, total


def constant_log_det(value: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """The scalar `value`, nats, for each of the N `images`: `[N]`."""
    return tf.broadcast_to(value, tf.shape(images)[:1])


def zero_log_det(images: tf.Tensor) -> tf.Tensor:
    """`[N]` zeros of the dtype of the N `images`: the log-determinant of a rearrangement of pixels."""
    return constant_log_det(tf.zeros([], images.dtype), images)
