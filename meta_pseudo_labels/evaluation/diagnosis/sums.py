"""Sums over the gradients of one estimator on one batch."""

import numpy as np

# Below this share of the teacher's other gradient a feedback is rounding error.
NEGLIGIBLE = 1e-6


class GradientSums:
    """Statistics of gradients that are seen one after the other.

    Args:
      exact: the gradient of `exact`, [P].
      other: norm of the teacher's other gradient over the feedback's weight.
    """

    def __init__(self, exact, other):
        self._exact, self._other = exact, other
        self._total = np.zeros_like(exact)
        self._squares, self._cosines, self._h = [], [], []

    def add(self, gradient, h=None):
        if not self._squares:
            self.first = gradient
        self._total += gradient
        self._squares.append(float(gradient @ gradient))
        self._cosines.append(_cosine(gradient, self._exact))
        if h is not None:
            self._h.append(h)

    @property
    def mean(self):
        return self._total / len(self._squares)

    def numbers(self):
        """The statistics, a dict for JSON; see `summary.summarize`."""
        draws, mean = len(self._squares), self.mean
        squared_norm = float(mean @ mean)
        ratio = np.mean(np.sqrt(self._squares)) / self._other
        found = {
            "norm_ratio": float(ratio),
            "squared_norm_of_mean": squared_norm,
        }
        if ratio > NEGLIGIBLE:
            found["cosine_one_draw"] = float(np.mean(self._cosines))
            found["cosine_mean"] = _cosine(mean, self._exact)
        if draws > 1:
            spread = np.mean(self._squares) - squared_norm
            found["variance"] = float(spread * draws / (draws - 1))
            found["h"] = self._h
        return found


def _cosine(one, other):
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / norms) if norms else 0.0
