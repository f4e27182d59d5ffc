"""The published step of Meta Pseudo Labels in plain PyTorch, for run.py.

Written the way a PyTorch user would: eager mode, with the library's modules,
losses and optimizers. It does the work of our step with feedback "release": the
same network (arXiv 1605.07146 with the release's details), passes, losses,
weight decay, clipping, Nesterov momentum and averages.

    python benchmarks/step_time/torch_step.py '{"inputs": "inputs.npz", ...}'

A process of its own, because two frameworks in one process share threads. Each
line of standard input is answered by one step and a line of JSON: its times,
its losses and the peak memory of the process. torch_peer.py documents the
settings and writes the inputs.
"""

import copy
import json
import pathlib
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def main():
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    learner = Learner(settings, dict(np.load(settings["inputs"])))
    print(json.dumps({"version": torch.__version__}), flush=True)
    for _ in sys.stdin:
        start, cpu_start = time.perf_counter(), time.process_time()
        losses = learner.train_step()
        answer = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu_start,
            "losses": losses,
            "averages_norm": learner.averages_norm(),
            "peak_gib": peak_gibibytes(),
        }
        print(json.dumps(answer), flush=True)


def peak_gibibytes():
    """The largest resident set of this process so far; None except on Linux."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    return None


class Conv2d(nn.Conv2d):
    """Without bias, padded like TensorFlow's SAME for square images."""

    def __init__(self, inputs, filters, kernel_size, stride):
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(
            inputs, filters, kernel_size, stride, padding, bias=False
        )

    def forward(self, x):
        if self.stride[0] == 2 and self.kernel_size[0] == 3:
            before = x.shape[-1] % 2
            x = F.pad(x, [before, 1, before, 1])
        return super().forward(x)


class Stem(nn.Module):
    def __init__(self, inputs, filters, kernel_size=3, stride=1):
        super().__init__()
        self.conv2d = Conv2d(inputs, filters, kernel_size, stride)

    def forward(self, x):
        return self.conv2d(x)


class PreActivated(nn.Module):
    """Batch norm and leaky ReLU, then a convolution."""

    def __init__(self, inputs, filters, stride=1):
        super().__init__()
        self.batch_norm = nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.01)
        self.leaky_relu = nn.LeakyReLU(0.2, inplace=True)
        self.conv2d = Conv2d(inputs, filters, 3, stride)

    def activate(self, x):
        return self.leaky_relu(self.batch_norm(x))

    def forward(self, x):
        return self.conv2d(self.activate(x))


class Block(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.conv_3x3_1 = PreActivated(inputs, filters, stride)
        self.conv_3x3_2 = PreActivated(filters, filters)
        self.residual = None
        if stride > 1 or inputs != filters:
            self.residual = Stem(inputs, filters, 1, stride)

    def forward(self, x):
        activated = self.conv_3x3_1.activate(x)
        shortcut = x if self.residual is None else self.residual(activated)
        x = self.conv_3x3_1.conv2d(activated)
        return self.conv_3x3_2(x) + shortcut


class Head(nn.Module):
    def __init__(self, inputs, num_classes):
        super().__init__()
        self.batch_norm = nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.01)
        self.leaky_relu = nn.LeakyReLU(0.2, inplace=True)
        self.dense = nn.Linear(inputs, num_classes)

    def forward(self, x):
        return self.dense(self.leaky_relu(self.batch_norm(x)).mean([2, 3]))


def wide_resnet(*, depth, filters, num_classes):
    """Layers with the same names as ours, so that weights can be copied."""
    layers, inputs = {"stem": Stem(3, filters)}, filters
    blocks = (depth - 4) // 6
    for block in range(3 * blocks):
        stage, position = divmod(block, blocks)
        stride = 2 if stage > 0 and position == 0 else 1
        outputs = filters * 2**stage
        layers[f"block_{block + 1}"] = Block(inputs, outputs, stride)
        inputs = outputs
    layers["head"] = Head(inputs, num_classes)
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network


class Learner:
    """Student and teacher, their optimizers, and one batch.

    Args:
      settings: a dict of numbers; see torch_peer.py.
      inputs: arrays by name: the batch under "batch/<key>", the weights of both
        networks under "<role>/<name in the state of the network>".
    """

    def __init__(self, settings, inputs):
        self.settings = settings
        layout = (
            torch.channels_last
            if settings["channels_last"]
            else torch.contiguous_format
        )
        self.batch = {
            name: torch.from_numpy(inputs[f"batch/{name}"])
            for name in ("labeled", "labels", "weak", "strong")
        }
        for name in ("labeled", "weak", "strong"):
            self.batch[name] = self.batch[name].contiguous(memory_format=layout)
        self.networks, self.optimizers = {}, {}
        for role in ("student", "teacher"):
            network = wide_resnet(**settings["network"])
            network.load_state_dict(
                {
                    name.removeprefix(f"{role}/"): torch.from_numpy(value)
                    for name, value in inputs.items()
                    if name.startswith(f"{role}/")
                }
            )
            self.networks[role] = network.to(memory_format=layout).train()
            self.optimizers[role] = torch.optim.SGD(
                network.parameters(),
                lr=settings["learning_rate"],
                momentum=settings["momentum"],
                nesterov=True,
            )
        compiled = torch.compile if settings["compiled"] else lambda call: call
        self.calls = {
            role: compiled(network) for role, network in self.networks.items()
        }
        self.averages = copy.deepcopy(self.networks["student"])
        self.baseline = 0.0
        self.step = 0

    def train_step(self):
        """Trains on the batch; returns the losses as floats, by our names."""
        settings, batch = self.settings, self.batch
        smoothing = settings["label_smoothing"]
        sizes = [len(batch[name]) for name in ("labeled", "weak", "strong")]

        logits = self.logits(
            "teacher",
            torch.cat([batch["labeled"], batch["weak"], batch["strong"]]),
        )
        labeled, weak, strong = logits.split(sizes)
        pseudo_labels = strong.detach().softmax(-1)

        views = torch.cat([batch["strong"], batch["labeled"]])
        on_strong, on_labeled = self.logits("student", views).split(
            [sizes[2], sizes[0]]
        )
        student_loss = F.cross_entropy(
            on_strong, pseudo_labels, label_smoothing=smoothing
        )
        old = F.cross_entropy(on_labeled.detach(), batch["labels"])
        self.update("student", student_loss)
        with torch.no_grad(), unchanged_moments(self.networks["student"]):
            logits = self.logits("student", batch["labeled"])
            new = F.cross_entropy(logits, batch["labels"])
        change = (new - old).item()
        self.baseline += (1 - settings["baseline_decay"]) * (
            change - self.baseline
        )
        dot_product = change - self.baseline

        cross_entropy = F.cross_entropy(
            labeled, batch["labels"], label_smoothing=smoothing
        )
        consistency = self.consistency(weak, strong)
        ramp = min(self.step / settings["uda_ramp_steps"], 1.0)
        feedback = dot_product * F.cross_entropy(strong, pseudo_labels)
        weighted = settings["uda_weight"] * ramp * consistency
        self.update("teacher", cross_entropy + weighted + feedback)
        self.average()
        self.step += 1
        return {
            "cross_entropy/student_on_u": student_loss.item(),
            "cross_entropy/student_on_l_old": old.item(),
            "cross_entropy/student_on_l": new.item(),
            "cross_entropy/teacher_on_l": cross_entropy.item(),
            "cross_entropy/teacher_on_u": consistency.item(),
            "mpl/dot_product": dot_product,
        }

    def logits(self, role, images):
        """A network's logits, float32; under autocast if settings say so."""
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=self.settings["bfloat16"]
        ):
            return self.calls[role](images).float()

    def consistency(self, weak, strong):
        """The consistency loss of strong with confident weak views, scalar."""
        targets = (weak.detach() / self.settings["uda_temperature"]).softmax(-1)
        confident = targets.amax(-1) >= self.settings["uda_threshold"]
        losses = F.cross_entropy(strong, targets, reduction="none")
        return (losses * confident).mean()

    def update(self, role, loss):
        """Weight decay on all but batch norm, clipping, Nesterov momentum."""
        network, settings = self.networks[role], self.settings
        decay = settings["weight_decay"]
        self.optimizers[role].zero_grad()
        loss.backward()
        for name, weight in network.named_parameters():
            if "batch_norm" not in name:
                weight.grad.add_(weight.detach(), alpha=decay)
        nn.utils.clip_grad_norm_(network.parameters(), settings["grad_bound"])
        self.optimizers[role].step()

    @torch.no_grad()
    def average(self):
        """Updates the student's moving average, with batch norm's moments."""
        ramp = (self.step + 1) / (self.step + 10)
        rate = 1 - min(self.settings["ema_decay"], ramp)
        averages = self.averages.state_dict()
        for name, value in self.networks["student"].state_dict().items():
            if value.is_floating_point():
                averages[name].lerp_(value, rate)

    @torch.no_grad()
    def averages_norm(self):
        """The norm of all averaged trainable weights, to compare with ours."""
        squares = [w.square().sum() for w in self.averages.parameters()]
        return torch.stack(squares).sum().sqrt().item()


class unchanged_moments:
    """A context in which batch norm's moving averages do not change."""

    def __init__(self, network):
        self.norms = [
            layer
            for layer in network.modules()
            if isinstance(layer, nn.BatchNorm2d)
        ]

    def __enter__(self):
        self.set(False)

    def __exit__(self, *error):
        self.set(True)

    def set(self, tracks):
        for norm in self.norms:
            norm.track_running_stats = tracks


if __name__ == "__main__":
    main()
