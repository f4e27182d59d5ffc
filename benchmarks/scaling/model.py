"""How long a step takes on many TPU cores: the arithmetic of run.py."""

import dataclasses
import math

from benchmarks.scaling.estimates import SLICES
from meta_pseudo_labels.models.batch_norm import (
    replicas_per_group,
)

MAX_CORES_PER_REPLICA = 16
FLOAT32 = 4  # Bytes of a gradient, a weight or a moment, in any policy.

# Passes of a step through batch norm, each with an all-reduce a layer: see
# docs/scaling.md. The teacher goes forward and backward, the student forward,
# backward and, with its new weights, forward.
_PASSES = 5
# The gradient at the new weights; the derivative of the student's gradient.
_MORE_PASSES = {
    "reinforce_dot_product": 1,
    "reinforce_cosine": 1,
    "reinforce_per_example": 2,
    "exact": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """TPU v3, of chips with two cores each in a torus of two dimensions.

    Attributes:
      peak: bfloat16 operations a second of a core.
      utilization: assumed share of the peak, the same for any batch.
      bandwidth: bytes a second that a chip sends in an all-reduce. Google's
        page on v3 gives 340 TB/s for 1,024 chips; assumed: half of that.
      launch: seconds to begin an all-reduce; assumed.
      hop: seconds from a chip to the next, software included; assumed.
      memory_bandwidth: bytes a second of a core; 900 GB/s a chip, same page.
      accesses: reads and writes of a pair of weights, teacher's and student's,
        by clipping, optimizers and average; assumed, perfectly fused.
      fixed: seconds a step of everything else; assumed.
    """

    peak: float = SLICES["v3-8"].peak / 2
    utilization: float = 0.3
    bandwidth: float = 340e12 / 1024 / 2
    launch: float = 5e-6
    hop: float = 1e-6
    memory_bandwidth: float = 450e9
    accesses: int = 14
    fixed: float = 2e-4

    def all_reduce(self, size, *, cores):
        """Seconds to sum `size` bytes over cores: rings along both dimensions.

        The two cores of a chip share its memory; that costs a launch.
        """
        if cores == 1:
            return 0.0
        chips = math.ceil(cores / 2)
        sent = 2 * (chips - 1) / chips * size
        return (
            self.launch + ring_steps(chips) * self.hop + (sent / self.bandwidth)
        )


def ring_steps(chips):
    """Steps from chip to chip of an all-reduce on a torus, as square as can be.

    Around a ring of n chips sums take n - 1 steps, and their way back as many.

    Args:
      chips: a power of 2.
    """
    width = 2 ** (int(math.log2(chips)) // 2)
    return 2 * (width - 1) + 2 * (chips // width - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What a step asks for; teacher and student are alike.

    Attributes:
      batch_size, unlabeled_ratio: B and mu.
      feedback: name of the estimator.
      forwards: how many forward passes a labeled image it is worth.
      layers: (operations an image, width in pixels, whether neighbors' pixels
        are needed) of each layer with a kernel, of one network.
      channels: of each batch norm, of one network.
      parameters: of one network.
      group_batch_size: images in a group of batch norm; see `BatchNorm`.
      activations: bytes that are kept, at least; see estimates.py.
    """

    batch_size: int
    unlabeled_ratio: int
    feedback: str
    forwards: float
    layers: tuple[tuple[int, int, bool], ...]
    channels: tuple[int, ...]
    parameters: int
    group_batch_size: int | None = None
    activations: int = 0

    @property
    def second_order(self):
        return _MORE_PASSES.get(self.feedback, 0) == 2

    @property
    def passes(self):
        return _PASSES + _MORE_PASSES.get(self.feedback, 0)

    @property
    def gradient_sums(self):
        """All-reduces as large as a network: see docs/scaling.md."""
        return 2 + (self.feedback in _MORE_PASSES)

    def images(self):
        """Labeled images times the rows they bring, of (teacher, student)."""
        ratio = self.unlabeled_ratio
        return (
            self.batch_size * (1 + 2 * ratio),
            self.batch_size * (1 + ratio),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of a step on so many cores, by what takes them."""

    cores: int
    cores_per_replica: int
    compute: float
    gradients: float
    batch_norm: float
    rest: float
    fits: bool

    @property
    def replicas(self):
        return self.cores // self.cores_per_replica

    @property
    def step(self):
        return self.compute + self.gradients + self.batch_norm + self.rest


def simulate(step, machine, *, cores):
    """`Times` of a step; a replica has one core while there are images enough.

    Raises:
      ValueError: for more cores than can be made use of.
    """
    each = max(1, cores // step.batch_size)
    if each > MAX_CORES_PER_REPLICA:
        raise ValueError(
            f"A batch of {step.batch_size} on {cores} cores needs {each} cores "
            f"a replica; {MAX_CORES_PER_REPLICA} are the most."
        )
    replicas = cores // each
    rows = step.forwards * step.batch_size / replicas
    work = sum(flops / speedup(width, each) for flops, width, _ in step.layers)
    weights = FLOAT32 * step.parameters
    # Cores that share images also pass on the columns at their borders.
    borders = step.passes * sum(wide for _, _, wide in step.layers)
    return Times(
        cores=cores,
        cores_per_replica=each,
        compute=rows * work / (machine.peak * machine.utilization),
        gradients=step.gradient_sums * machine.all_reduce(weights, cores=cores),
        batch_norm=batch_norm_seconds(
            step, machine, cores=cores, replicas=replicas
        ),
        rest=machine.fixed
        + machine.accesses * weights / machine.memory_bandwidth
        + (each > 1) * borders * (machine.launch + machine.hop),
        fits=step.activations / math.ceil(cores / 2) < SLICES["v3-8"].memory,
    )


def speedup(width, cores):
    """Of a layer whose columns are dealt to cores, of which some get none."""
    return width / math.ceil(width / cores)


def batch_norm_seconds(step, machine, *, cores, replicas):
    """Of all all-reduces of moments, and of what flows back through them."""
    teacher, student = step.images()
    more = step.passes - _PASSES
    passes = [(teacher, 2, True), (student, 2 + (more == 2), True)]
    passes.append((step.batch_size, 1 + (more > 0), False))
    seconds = 0.0
    for images, count, moves in passes:
        members = replicas_per_group(
            replicas,
            batch_size=images // replicas,
            group_batch_size=step.group_batch_size,
        )
        for channels in step.channels:
            moments = 2 * FLOAT32 * channels
            size = replicas // members * moments  # A place for each group.
            seconds += count * machine.all_reduce(size, cores=cores)
            if moves and members < replicas:  # For the moving averages.
                seconds += machine.all_reduce(moments, cores=cores)
    return seconds
