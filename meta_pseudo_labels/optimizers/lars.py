"""Layer-wise adaptive rate scaling as the release implements it."""

import keras
import tensorflow as tf

from meta_pseudo_labels.optimizers.momentum import Momentum
from meta_pseudo_labels.utils.compat import index_of

SKIP_LIST = ("batch_norm", "batchnorm", "gamma", "beta", "bias")


@keras.saving.register_keras_serializable("meta_pseudo_labels")
class LARS(Momentum):
    """LARS (You et al. 2017, arXiv 1708.03888) as the release implements it.

    For each variable, with |.| the Euclidean norm over all its entries,

        ratio = eeta * |w| / (|g| + weight_decay * |w| + epsilon)
        step = lr * ratio * (g + weight_decay * w)
        slot = momentum * slot + step
        w -= step + momentum * slot    (Nesterov; else w -= slot)

    The rate goes into the slot, unlike in `Momentum`: weights keep moving when
    it falls to 0. The ratio is 1 if |w| or |g| is 0. Variables whose path has a
    word of `skip_list` get ratio 1 and no weight decay. Release
    `common_utils.get_optimizer`.

    Args:
      learning_rate: a float or a `LearningRateSchedule`.
      momentum: decay of the slot, in [0, 1).
      weight_decay: this times w is added to the gradient; at least 0. It comes
        on top of a learner's own `weight_decay`, as in the release.
      eeta: the trust coefficient, above 0.
      epsilon: keeps the ratio's divisor away from 0, at least 0.
      skip_list: words, matched literally anywhere in `variable.path`.
      nesterov: whether to look ahead, as the release does.
      **kwargs: those of `keras.optimizers.Optimizer`.

    Raises:
      ValueError: for a number out of range.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        eeta=1e-3,
        epsilon=0.0,
        skip_list=SKIP_LIST,
        nesterov=True,
        name="lars",
        **kwargs,
    ):
        # Not Keras's weight_decay, which would shrink the weights once more.
        super().__init__(learning_rate, momentum, nesterov, name, **kwargs)
        if not weight_decay >= 0:
            raise ValueError(
                f"weight_decay must not be negative; got {weight_decay}."
            )
        if not eeta > 0:
            raise ValueError(f"eeta must be positive; got {eeta}.")
        if not epsilon >= 0:
            raise ValueError(f"epsilon must not be negative; got {epsilon}.")
        self.decay = weight_decay
        self.eeta = eeta
        self.epsilon = epsilon
        self.skip_list = tuple(skip_list)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        # Kept by index: an update sees TensorFlow's variable, without a path.
        self._scaled = tuple(
            not any(word in v.path for word in self.skip_list)
            for v in variables
        )

    @property
    def release_slots(self):
        """Slots by TensorFlow 1's name, in the order of the variables."""
        return {"LARSOptimizer": list(self.slots)}

    def update_step(self, gradient, variable, learning_rate):
        """One variable's update, by the fused kernel of TensorFlow 1."""
        gradient = tf.cast(gradient, variable.dtype)
        rate = tf.cast(learning_rate, variable.dtype)
        if self._scaled[index_of(self, variable)]:
            weights = tf.convert_to_tensor(variable)
            rate *= self._trust_ratio(gradient, weights)
            gradient += self.decay * weights
        self.move(
            variable,
            gradient * rate,
            rate=tf.ones([], variable.dtype),
            momentum=tf.constant(self.momentum, variable.dtype),
        )

    def _trust_ratio(self, gradient, weights):
        weight_norm, gradient_norm = tf.norm(weights), tf.norm(gradient)
        ratio = (self.eeta * weight_norm) / (
            gradient_norm + self.decay * weight_norm + self.epsilon
        )
        usable = (weight_norm > 0) & (gradient_norm > 0)
        return tf.where(usable, ratio, tf.ones_like(ratio))

    def derivative(self, gradient, variable, learning_rate):
        """See `Momentum.derivative`; the rate holds the trust ratio fixed.

        The ratio falls as |g| grows: by ratio**2 / (eeta * |w|) per unit, along
        g / |g|. If |w| or |g| is 0, the ratio is taken as the constant 1.
        """
        ahead = self.momentum if self.nesterov else 0.0
        slope = tf.cast(learning_rate, variable.dtype)
        slope *= tf.constant(1 + ahead, variable.dtype)
        if not self._scaled[index_of(self, variable)]:
            return -slope, lambda upstream: -slope * upstream
        gradient = tf.cast(gradient, variable.dtype)
        weights = tf.convert_to_tensor(variable)  # As they are before the step.
        ratio = self._trust_ratio(gradient, weights)

        def pull(upstream):
            size = tf.norm(gradient) * self.eeta * tf.norm(weights)
            along = tf.reduce_sum(upstream * (gradient + self.decay * weights))
            fall = tf.math.divide_no_nan(tf.square(ratio) * along, size)
            return -slope * (ratio * upstream - fall * gradient)

        return -slope * ratio, pull

    def get_config(self):
        return {
            **super().get_config(),
            "weight_decay": self.decay,
            "eeta": self.eeta,
            "epsilon": self.epsilon,
            "skip_list": list(self.skip_list),
        }
