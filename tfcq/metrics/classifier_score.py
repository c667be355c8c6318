"""The classifier score of generated images: the Inception score (Salimans et al. 2016), with any classifier.

    score = exp( E_x KL( p(y|x) || p(y) ) )

between 1 (every image gets the same prediction) and the number of classes (each image certainly belongs to one class, and
all classes are equally frequent). It does not look at real images, and does not notice a generator that repeats one image
per class.

In NumPy, so that it needs no TensorFlow. TF-GAN's `classifier_score_from_logits` has no splits, and gives NaN where a
probability underflows to 0 for all images (a logit some 745 below another), since it takes the logarithm of the mean
probability; here that logarithm is a log-sum-exp.

References:
    Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen. Improved techniques for training GANs. 2016. Section 4.
    Barratt, Sharma. A note on the Inception score. 2018. (What the score misses, and the effect of the splits.)
"""

import numpy as np
from scipy.special import log_softmax, logsumexp

from tfcq.errors import UserError
from tfcq.metrics.checks import check_features
from tfcq.metrics.metric import Measured, Metric


def classifier_score(logits: np.ndarray, num_splits: int = 10) -> dict[str, float]:
    """The classifier score of consecutive parts of the images: their mean, and their standard deviation.

    The parts are taken in the given order, [i N // num_splits, (i + 1) N // num_splits), as in Salimans et al.'s
    program, and each has a marginal p(y) of its own. Images sorted by class need shuffling first. A part of n images
    scores at most n, so few images or many splits lower the mean.

    Args:
        logits: float32 [N, K], one row a generated image; unnormalised log-probabilities of the K classes.
        num_splits: number of parts, 1 to N.

    Returns:
        A dict: "mean" and "std", floats; "num_splits", an int. The standard deviation is that of the parts' scores over
        the number of parts (ddof = 0, as published scores have it), so it is 0 for one part, and it is not the
        standard error of the mean.

    Raises:
        UserError: logits of another rank or not finite, or `num_splits` outside 1 to N.
    """
    logits = check_features(logits, "logits")
    num_images = len(logits)
    if not 1 <= num_splits <= num_images:
        raise UserError(
            f"num_splits: expected 1 to the number of images, {num_images}, received {num_splits}; "
            "use fewer splits or more images"
        )
    edges = [index * num_images // num_splits for index in range(num_splits + 1)]
    scores = [_score(logits[start:stop].astype(np.float64)) for start, stop in zip(edges[:-1], edges[1:])]
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores)), "num_splits": num_splits}


def _score(logits):
    """exp of the mean KL divergence from the marginal; logits float64 [n, K]."""
    log_conditional = log_softmax(logits, axis=1)
    log_marginal = logsumexp(log_conditional, axis=0) - np.log(len(logits))
    divergence = np.sum(np.exp(log_conditional) * (log_conditional - log_marginal), axis=1)
    return np.exp(divergence.mean())


def _measure(real, generated, seed):
    splits = min(10, len(generated))
    score = classifier_score(generated.logits, splits)
    detail = {"standard_deviation_over_splits": score["std"], "num_splits": splits}
    return Measured({"classifier_score": score["mean"]}, {"classifier_score": detail})


METRIC = Metric(_measure, needs="logits")
