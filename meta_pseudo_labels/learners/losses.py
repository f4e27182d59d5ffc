"""Losses per example, and the soft labels they compare with.

Losses return one value per example, in nats, unless their name says mean.
"""

import tensorflow as tf


def smooth_labels(labels, smoothing):
    """Mixes labels with the uniform distribution.

    Args:
      labels: probabilities, [batch, classes]; rows sum to 1.
      smoothing: weight of the uniform distribution, in [0, 1].

    Returns:
      `labels * (1 - smoothing) + smoothing / classes`, [batch, classes].
    """
    if not smoothing:
        return labels
    classes = labels.shape[-1]
    return labels * (1.0 - smoothing) + smoothing / classes


def soft_cross_entropy(*, targets, logits):
    """Cross-entropy of soft targets against logits, in nats, [batch].

    Written out rather than through
    `tf.nn.softmax_cross_entropy_with_logits`: the gradient that TensorFlow
    registers for that op forgets that the gradient with respect to the logits
    depends on the targets, so a tape around a tape (the `exact` feedback)
    would find nothing there.

    Args:
      targets: probabilities, [batch, classes]; rows sum to 1.
      logits: unnormalised scores, [batch, classes].
    """
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


def mean_cross_entropy(targets, logits):
    """Mean of `soft_cross_entropy` over the batch, scalar, nats."""
    return tf.reduce_mean(soft_cross_entropy(targets=targets, logits=logits))


def consistency_loss(*, weak_logits, strong_logits, temperature, threshold):
    """Cross-entropy of sharpened, confident weak views against strong views.

    Unsupervised Data Augmentation (Xie et al. 2019; release `UDA.step_fn`,
    quirk 14). No gradient flows into the targets. The mean of the returned
    losses divides by all images, not by the confident ones, as in the release.

    Args:
      weak_logits: logits of the weak views, [batch, classes].
      strong_logits: logits of the strong views, [batch, classes].
      temperature: divides the weak logits; below 1 sharpens.
      threshold: an image counts when its largest sharpened probability is at
        least this, in [0, 1].

    Returns:
      The losses, [batch] nats, zero where masked, and the mask, [batch] of 0
      and 1.
    """
    targets = tf.stop_gradient(tf.nn.softmax(weak_logits / temperature))
    confident = tf.reduce_max(targets, axis=-1) >= threshold
    mask = tf.cast(confident, strong_logits.dtype)
    losses = soft_cross_entropy(targets=targets, logits=strong_logits)
    return losses * mask, mask
