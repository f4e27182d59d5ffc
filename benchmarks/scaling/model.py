"""How long a step takes on TPUs: the assumptions, then the arithmetic.

A step takes the time of its multiplications, of all-reduces of gradients and of
batch norm's moments, and of the work that every core repeats. The global batch
is fixed. Nobody here measured the assumed numbers.
"""

import dataclasses
import math

from meta_pseudo_labels.models.batch_norm import replicas_per_group

MAX_CORES_PER_REPLICA = 16
FLOAT32 = 4  # Bytes of a gradient, a weight or a moment, in any policy.
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Slice:
    """A Cloud TPU, by accelerator type.

    Attributes:
      chips: number of chips.
      peak: bfloat16 operations a second of one chip.
      memory: bytes of one chip.
    """

    chips: int
    peak: float
    memory: int


# Per chip, peak and memory. v3, v4 and v5e: cloud.google.com/tpu/docs/v3, /v4,
# /v5e. v2: Jouppi et al., "A Domain-Specific Supercomputer for Training Deep
# Neural Networks" (CACM 63:7, 2020).
_V2, _V3 = (46e12, 16 * GIB), (123e12, 32 * GIB)
_V4, _V5E = (275e12, 32 * GIB), (197e12, 16 * GIB)
SLICES = {
    "v2-8": Slice(4, *_V2),  # A chip of v2 to v4 has two cores, of v5e one.
    "v3-8": Slice(4, *_V3),
    "v4-8": Slice(4, *_V4),
    "v5litepod-8": Slice(8, *_V5E),
    "v3-32": Slice(16, *_V3),
    "v3-128": Slice(64, *_V3),
    "v4-128": Slice(64, *_V4),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One of the release's runs.

    Attributes:
      title: of its table.
      flagfile: its settings.
      utilization: assumed share of the peak; nobody here measured it.
      why: the reason for this assumption.
      slices: names in `SLICES`.
    """

    title: str
    flagfile: str
    utilization: float
    why: str
    slices: tuple[str, ...]


ONE_HOST = ("v2-8", "v3-8", "v4-8", "v5litepod-8")
RUNS = (
    Run(
        "CIFAR-10 with 4,000 labels",
        "flags/cifar10_4000_mpl.flags",
        0.1,
        "its layers have 32 to 128 channels, and matrix units 128 lanes",
        (*ONE_HOST, "v3-32"),
    ),
    Run(
        "ImageNet with a tenth of its labels",
        "flags/imagenet_10_percent_mpl.flags",
        0.3,
        "its layers have 64 to 2,048 channels",
        (*ONE_HOST, "v3-32", "v3-128", "v4-128"),
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """TPU v3: chips with two cores each, in a two-dimensional torus.

    Attributes:
      peak: bfloat16 operations a second of a core.
      utilization: assumed share of the peak, the same for any batch.
      bandwidth: bytes a second that a chip sends in an all-reduce. Google's
        page on v3 gives 340 TB/s for 1,024 chips; assumed: half of that.
      launch: seconds to start an all-reduce; assumed.
      hop: seconds from a chip to the next, software included; assumed.
      memory_bandwidth: bytes a second of a core; 900 GB/s a chip, same page.
      accesses: reads and writes of a pair of weights, teacher's and student's,
        by clipping, optimizers and average; assumed, perfectly fused.
      fixed: seconds per step for everything else; assumed.
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

        The two cores of a chip share its memory, so they only cost a launch.
        """
        if cores == 1:
            return 0.0
        chips = math.ceil(cores / 2)
        sent = 2 * (chips - 1) / chips * size
        return (
            self.launch + ring_steps(chips) * self.hop + (sent / self.bandwidth)
        )


def ring_steps(chips):
    """Chip-to-chip steps of an all-reduce on a torus that is nearly square.

    In a ring of n chips, sums take n - 1 steps, and the way back as many.

    Args:
      chips: a power of 2.
    """
    width = 2 ** (int(math.log2(chips)) // 2)
    return 2 * (width - 1) + 2 * (chips // width - 1)


# Passes of a step through batch norm, each with one all-reduce per layer: see
# docs/scaling.md. The teacher goes forward and backward, the student forward,
# backward and, with its new weights, forward.
_PASSES = 5
# For the gradient at the new weights, and the derivative of the student's
# gradient.
_MORE_PASSES = {
    "reinforce_dot_product": 1,
    "reinforce_cosine": 1,
    "reinforce_per_example": 2,
    "exact": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """The work of a step; teacher and student have the same network.

    Attributes:
      batch_size, unlabeled_ratio: B and mu.
      feedback: name of the estimator.
      forwards: the step's work, in forward passes per labeled image.
      layers: (operations per image, width in pixels, whether neighbors' pixels
        are needed) of each layer with a kernel, of one network.
      channels: of each batch norm, of one network.
      parameters: of one network.
      group_batch_size: images in a group of batch norm; see `BatchNorm`.
      activations: bytes kept for backward passes, at least.
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
    def batch_images(self):
        """Labeled and unlabeled images; the latter have two views each."""
        return self.batch_size * (1 + self.unlabeled_ratio)

    @property
    def forward(self):
        """Operations of a forward pass, per image."""
        return sum(operations for operations, *_ in self.layers)

    @property
    def operations(self):
        """Of the step."""
        return self.forwards * self.batch_size * self.forward

    @property
    def passes(self):
        return _PASSES + _MORE_PASSES.get(self.feedback, 0)

    @property
    def gradient_sums(self):
        """All-reduces as large as a network: see docs/scaling.md."""
        return 2 + (self.feedback in _MORE_PASSES)

    def images(self):
        """Rows of a batch, as (teacher's, student's)."""
        ratio = self.unlabeled_ratio
        return (
            self.batch_size * (1 + 2 * ratio),
            self.batch_size * (1 + ratio),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of a step on a number of cores, by what they are spent on."""

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
    """`Times` of a step; a replica has one core as long as images suffice.

    Raises:
      ValueError: for more cores than can be used.
    """
    each = max(1, cores // step.batch_size)
    if each > MAX_CORES_PER_REPLICA:
        raise ValueError(
            f"A batch of {step.batch_size} on {cores} cores needs {each} cores "
            f"a replica; {MAX_CORES_PER_REPLICA} is the maximum."
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
    """Speedup of a layer with its columns split over cores, some idle."""
    return width / math.ceil(width / cores)


def batch_norm_seconds(step, machine, *, cores, replicas):
    """Seconds of all-reduces of moments and of the gradients through them."""
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
