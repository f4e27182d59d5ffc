"""torchvision's RandAugment in a process of its own, for run.py.

A separate process, because two frameworks in one process share threads, and
because a DataLoader forks its workers, which TensorFlow's threads would not
survive. Each line of standard input, a number of seconds, is answered with a
line: images per second.
"""

import sys
import time


def main():
    batch_size, image_size, workers = map(int, sys.argv[1:])
    import torch
    import torchvision
    from torchvision.transforms import v2

    loader = torch.utils.data.DataLoader(
        RandomImages(
            torch.randint(0, 256, [batch_size, 3, image_size, image_size]).to(
                torch.uint8
            ),
            v2.RandAugment(num_ops=2),
        ),
        batch_size=batch_size,
        num_workers=workers,
    )
    batches = iter(loader)
    next(batches)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    sys.stdout.flush()
    for line in sys.stdin:
        print(images_per_second(batches, float(line)), flush=True)


class RandomImages:
    """An endless set of the same few images, each augmented separately."""

    def __init__(self, images, augment):
        self.images, self.augment = images, augment

    def __len__(self):
        return 2**40

    def __getitem__(self, index):
        return self.augment(self.images[index % len(self.images)])


def images_per_second(batches, seconds):
    """As in variants.py: what is already queued does not count."""
    take(batches, seconds / 4)
    return take(batches, seconds)


def take(batches, seconds):
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not count:
        count += len(next(batches))
    return count / elapsed


if __name__ == "__main__":
    main()
