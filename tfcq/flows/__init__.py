"""Bijections of images: Keras layers that own their weights and make TFP bijectors over them."""

from tfcq.flows.autoregressive import InverseAutoregressiveFlow
from tfcq.flows.base import Chain, Flow
from tfcq.flows.coupling import AffineCoupling
from tfcq.flows.image_flow import ImageFlow
from tfcq.flows.multi_scale import MultiScale
from tfcq.flows.normalization import ActNorm, BatchNormalizationFlow
from tfcq.flows.permutation import ChannelPermutation
from tfcq.flows.squeeze import Squeeze, Unsqueeze

__all__ = [
    "ActNorm",
    "AffineCoupling",
    "BatchNormalizationFlow",
    "Chain",
    "ChannelPermutation",
    "Flow",
    "ImageFlow",
    "InverseAutoregressiveFlow",
    "MultiScale",
    "Squeeze",
    "Unsqueeze",
]
