"""What makes a discriminator one of images and their classes."""

import keras
import tensorflow as tf


class ClassProjection(keras.layers.Layer):
    """The inner product of an image's features with a vector of its class, which is 0 at first; float32 always.

    Beside a linear layer of the features this is the log-ratio of p(y | x) of real and of generated images, if both are softmax
    functions of linear ones of the same features (Miyato and Koyama, "cGANs with projection discriminator", 2018).

    Args:
        num_classes: number of classes.
        size: number of values of an image's features.
        name: the layer's name.
    """

    def __init__(self, num_classes: int, size: int, name: str = "class_projection"):
        super().__init__(name=name, dtype="float32")
        self.vectors = self.add_weight(name="vectors", shape=(num_classes, size), initializer="zeros")

    def call(self, features: tf.Tensor, condition: tf.Tensor) -> tf.Tensor:
        """Features [N, size] and classes, one-hot float32 [N, num_classes], to float32 [N]."""
        return tf.reduce_sum(tf.cast(features, tf.float32) * tf.matmul(condition, self.vectors), axis=-1)
