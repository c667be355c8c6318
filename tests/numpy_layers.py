"""Layers by their definition in NumPy, for tests to compare with."""

import numpy as np


def convolve(inputs, kernel):
    """A `SAME` convolution of stride 1: inputs [N, H, W, channels], kernel [k, k, channels, filters], k odd."""
    border = kernel.shape[0] // 2
    padded = np.pad(inputs, ((0, 0), (border, border), (border, border), (0, 0)))
    height, width = inputs.shape[1:3]
    return sum(
        padded[:, row : row + height, column : column + width] @ kernel[row, column]
        for row in range(kernel.shape[0])
        for column in range(kernel.shape[1])
    )


def convolve_weight_normalized(inputs, layer):
    """What a weight-normalised `Convolution` gives of inputs [N, H, W, channels]; float64."""
    direction = layer.direction.numpy().astype(np.float64)
    kernel = layer.magnitude.numpy() * direction / np.sqrt(np.sum(direction**2, axis=(0, 1, 2)))
    return convolve(inputs, kernel) + layer.bias.numpy()
