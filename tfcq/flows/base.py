"""What every flow layer is, and how several make one."""

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.bijector import FlowBijector


class Flow(keras.layers.Layer):
    """A bijection between features and images, with the log-determinant of its Jacobian.

    The direction is TFP's: **forward** takes features (or latents) to images, **inverse** takes images to features. A
    flow is a Keras layer that owns its weights; `training` says how normalisations behave, never the direction.

    To write one, subclass and define

      * `_inverse_and_log_det(images, training) -> (features, log_det)`,
      * `_forward_and_log_det(features, training) -> (images, log_det)`,
      * `build(images_shape)`, `(N, H, W, C)` with an N that may be None, if there are weights (`add_transform_weight`)
        or inner layers (build them here, so that they get their names and are tracked),
      * `features_shape` and `images_shape`, if the two differ,
      * `initialize`, if a batch of images can set the first weights.

    Both directions get tensors of `transform_dtype`, checked, and must return such; each computes its output and its
    log-determinant in one go, so that a network inside runs once. Log-determinants are `[N]`, in nats.

    The transform is always computed in float32 (float64 where the layer's dtype is that): a mixed-precision policy
    reaches only the networks inside.

    Args:
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    def __init__(self, **kwargs):
        # No autocast: neither the images nor the transform's weights may fall to a policy's half precision.
        super().__init__(autocast=False, **kwargs)

    @property
    def transform_dtype(self):
        """The dtype of the transform and of its log-determinants: "float64" if the layer's, else "float32"."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def add_transform_weight(self, name, shape, initializer="zeros", **kwargs):
        """A weight that the transform reads at its own precision, whatever autocast scope surrounds the call."""
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, dtype=self.transform_dtype, autocast=False, **kwargs
        )

    # Nothing here is for AutoGraph, which would slow the tracing down and wrap every UserError.
    @tf.autograph.experimental.do_not_convert
    def inverse_and_log_det(self, images, training=False):
        """Images to features.

        Args:
            images: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`. H, W and C must be known.
            training: whether normalisations use, and learn from, the statistics of this batch.

        Returns:
            `features`, `[N, *features_shape]`, and `log_det`, `[N]`, nats: `log |d features / d images|`.

        Raises:
            UserError: if `images` has no such shape.
        """
        images = self._checked(images, "images")
        if not self.built:
            self.build(tuple(images.shape))
        with tf.name_scope(f"{self.name}_inverse"):
            return self._inverse_and_log_det(images, training)

    @tf.autograph.experimental.do_not_convert
    def forward_and_log_det(self, features, training=False):
        """Features to images. No weight changes, and no batch statistic is used, whatever `training` says.

        Args:
            features: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`. H, W and C must be known.
            training: accepted for symmetry; sampling always uses the moving statistics.

        Returns:
            `images`, `[N, *images_shape]`, and `log_det`, `[N]`, nats: `log |d images / d features|`.

        Raises:
            UserError: if `features` has no such shape.
        """
        features = self._checked(features, "features")
        if not self.built:
            self.build((None, *self.images_shape(tuple(features.shape[1:]))))
        with tf.name_scope(f"{self.name}_forward"):
            return self._forward_and_log_det(features, training)

    def call(self, images, training=False):
        """A flow called as a Keras layer is `inverse_and_log_det`."""
        return self.inverse_and_log_det(images, training)

    def initialize(self, images):
        """Data-dependent initialisation: sets the first weights from a batch; call it eagerly, once, before training.

        Args:
            images: `[N, H, W, C]`, a batch of what the flow will be trained on.

        Returns:
            The features of these images under the initialised weights.

        Raises:
            UserError: within a `tf.function`.
        """
        return self.inverse_and_log_det(self._checked_eager(images), training=False)[0]

    def features_shape(self, images_shape):
        """The features' `(H, W, C)` for images of `(H, W, C)`."""
        return tuple(images_shape)

    def images_shape(self, features_shape):
        """The images' `(H, W, C)` for features of `(H, W, C)`."""
        return tuple(features_shape)

    def bijector(self, training=False):
        """A fresh `tfb.Bijector` over this layer; see `FlowBijector`. Use it and let it go: do not store it."""
        return FlowBijector(self, training=training)

    def _inverse_and_log_det(self, images, training):
        raise NotImplementedError(f"{type(self).__name__} does not define _inverse_and_log_det")

    def _forward_and_log_det(self, features, training):
        raise NotImplementedError(f"{type(self).__name__} does not define _forward_and_log_det")

    def _checked_eager(self, images):
        """The images that `initialize` is given, checked and cast; builds the layer if it is not built."""
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

    They are listed in the order in which the inverse, from images to features, goes through them. That is also
    `tfb.Chain`'s order. An empty chain is the identity and has no weights.

    Args:
        flows: a sequence of `Flow`.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    def __init__(self, flows, **kwargs):
        super().__init__(**kwargs)
        self.flows = list(flows)
        # tf.train.Checkpoint follows attributes; what stands only in a list on a Keras layer it leaves out in silence.
        for index, flow in enumerate(self.flows):
            setattr(self, f"flow_{index}", flow)

    def build(self, images_shape):
        """Builds every flow for the shape that reaches it."""
        batch, *shape = images_shape
        for flow in self.flows:
            if not flow.built:
                flow.build((batch, *shape))
            shape = flow.features_shape(shape)

    def initialize(self, images):
        """Each flow is initialised from the features that the ones before it, already initialised, make."""
        images = self._checked_eager(images)
        for flow in self.flows:
            images = flow.initialize(images)
        return images

    def features_shape(self, images_shape):
        """The last flow's features' `(H, W, C)`."""
        for flow in self.flows:
            images_shape = flow.features_shape(images_shape)
        return tuple(images_shape)

    def images_shape(self, features_shape):
        """The first flow's images' `(H, W, C)`."""
        for flow in reversed(self.flows):
            features_shape = flow.images_shape(features_shape)
        return tuple(features_shape)

    def _inverse_and_log_det(self, images, training):
        total = zero_log_det(images)
        for flow in self.flows:
            images, log_det = flow.inverse_and_log_det(images, training)
            total += log_det
        return images, total

    def _forward_and_log_det(self, features, training):
        total = zero_log_det(features)
        for flow in reversed(self.flows):
            features, log_det = flow.forward_and_log_det(features, training)
            total += log_det
        return features, total


def constant_log_det(value, images):
    """The scalar `value`, nats, once for each of the N `images`: `[N]`."""
    return tf.broadcast_to(value, tf.shape(images)[:1])


def zero_log_det(images):
    """`[N]` zeros of the dtype of the N `images`: what a rearrangement of pixels adds."""
    return constant_log_det(tf.zeros([], images.dtype), images)
