"""Memory and time of Reduced Meta Pseudo Labels against the full method.

    python -m benchmarks.reduced_mpl.run --json reduced_mpl.json

All variants train the same student on the same number of images:

    full           its teacher is a network that sees all images
    reduced        its teacher is a small perceptron on the class distributions
                   that such a network predicted
    pseudo_labels  it has these distributions, and no teacher that learns

Each measurement is a process of its own, because a process does not give back
memory. The processes run in rounds, one of every variant in turn, and ratios
are computed within a round: when the machine slows down for a while, it slows
all of them. Peak memory is the most that the process ever held (resident),
minus what it held before the networks were built; one more step, which is not
timed, computes the costly logs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks.common.arguments import (
    benchmark_parser,
    parsed,
    recorded,
    write_report,
)

VARIANTS = ("full", "reduced", "pseudo_labels")
NUM_CLASSES = 10


def main():
    settings = parse_arguments()
    if settings.variant:
        print(json.dumps(measure(settings)))
        return
    rounds = []
    for _ in range(settings.rounds):
        rounds.append({name: measure_apart(name) for name in VARIANTS})
        report = summarize(rounds) | {
            "settings": recorded(settings, without=("variant",)),
            "machine": rounds[0][VARIANTS[0]]["machine"],
            "rounds": rounds,
        }
        # After each round, because a round may take minutes.
        write_report(report, settings.json)
    print_table(report)


def parse_arguments():
    parser = benchmark_parser(
        __doc__,
        (
            ("batch_size", 8, "labeled images, B"),
            ("unlabeled_ratio", 7, "unlabeled images per labeled one, mu"),
            ("image_size", 32, "height and width in pixels"),
            ("steps", 3, "timed steps per process"),
            ("warmup", 1, "untimed steps before these"),
            ("rounds", 5, "processes per variant"),
        ),
    )
    parser.add_argument("--student", default="wrn-28-2", help="the student")
    parser.add_argument(
        "--teacher", default="wrn-28-4", help="the teacher of `full`"
    )
    parser.add_argument(
        "--reduced_teacher", default="mlp-5-128", help="teacher of `reduced`"
    )
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parsed(parser)


def measure_apart(variant):
    """`measure` in a process of its own, with this one's arguments."""
    command = [sys.executable, "-m", "benchmarks.reduced_mpl.run"]
    command += [*sys.argv[1:], f"--variant={variant}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stderr}\nThe process {variant!r} failed; see above.")
    return json.loads(done.stdout.splitlines()[-1])


def measure(settings):
    """Seconds per step, peak memory and the number of weights."""
    # Imported here: the process that only starts others needs no TensorFlow.
    import keras
    import tensorflow as tf

    from benchmarks.common.machine import machine_facts

    keras.utils.set_random_seed(0)
    batch = random_batch(settings)
    before = memory("VmRSS")
    learner = build_learner(settings)
    step = tf.function(lambda: learner.train_step(batch), autograph=False)
    count = settings.warmup + settings.steps + 1
    # The last one computes the costly logs.
    learner.set_step(-count % learner.costly_log_every)
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        tf.nest.flatten(step())[0].numpy()
        seconds.append(time.perf_counter() - start)
    teacher = getattr(learner, "teacher", None)
    return {
        "seconds": statistics.median(seconds[settings.warmup : -1]),
        "peak_bytes": memory("VmHWM") - before,
        "start_bytes": before,
        "teacher_weights": teacher.count_params() if teacher else 0,
        "machine": machine_facts(),
    }


def memory(name):
    """Resident bytes of this process: current (VmRSS) or peak (VmHWM)."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}; this needs Linux.")


def random_batch(settings):
    """One constant batch, in the form that all variants take."""
    import tensorflow as tf

    labeled = settings.batch_size
    unlabeled = labeled * settings.unlabeled_ratio

    def images(count):
        size = settings.image_size
        return tf.random.normal([count, size, size, 3])

    def distributions(count):
        return tf.nn.softmax(tf.random.normal([count, NUM_CLASSES]))

    return {
        "labeled": images(labeled),
        "labels": tf.random.uniform(
            [labeled], maxval=NUM_CLASSES, dtype=tf.int32
        ),
        "weak": images(unlabeled),
        "strong": images(unlabeled),
        "labeled_distributions": distributions(labeled),
        "unlabeled_distributions": distributions(unlabeled),
    }


def build_learner(settings):
    """The compiled learner of a variant; any feedback is exact."""
    from meta_pseudo_labels import learners, models
    from meta_pseudo_labels.optimizers import Momentum

    def network(model_type, name):
        return models.build(
            model_type,
            input_shape=(settings.image_size, settings.image_size, 3),
            num_classes=NUM_CLASSES,
            name=name,
        )

    student = network(settings.student, "student")
    if settings.variant == "full":
        learner = learners.MetaPseudoLabels(
            student, network(settings.teacher, "teacher")
        )
    elif settings.variant == "reduced":
        teacher = models.reduced_teacher(
            num_classes=NUM_CLASSES,
            hidden_sizes=models.mlp_hidden_sizes(settings.reduced_teacher),
        )
        learner = learners.ReducedMPL(student, teacher)
    else:
        learner = learners.PseudoLabels(student)
    learner.compile(
        Momentum(0.05, momentum=0.9, nesterov=True), weight_decay=5e-4
    )
    return learner


def summarize(rounds):
    """Medians over the rounds of the figures and of their ratios to `full`.

    Also the smallest and the largest of the ratios.
    """

    def of_rounds(summary, figure, divided_by=None):
        return {
            name: summary(
                [
                    part[name][figure]
                    / (part[divided_by][figure] if divided_by else 1)
                    for part in rounds
                ]
            )
            for name in VARIANTS
        }

    median = statistics.median
    report = {"teacher_weights": of_rounds(median, "teacher_weights")}
    for figure in ("seconds", "peak_bytes"):
        report[figure] = of_rounds(median, figure)
        report[f"{figure}_ratio"] = of_rounds(median, figure, "full")
        report[f"{figure}_ratio_range"] = of_rounds(
            lambda ratios: [min(ratios), max(ratios)], figure, "full"
        )
    return report


def print_table(report):
    machine = report["machine"]
    print(
        f"{machine['cpu']}, {machine['cores']} cores, "
        f"TensorFlow {machine['tensorflow']}, {machine['date']}, "
        f"load {machine['load_average']:.1f}"
    )
    print(
        f"{'':15}{'teacher':>12}{'s/step':>9}{'ratio':>7}  {'range':12}"
        f"{'peak MB':>9}{'ratio':>7}"
    )
    for name in VARIANTS:
        bounds = "{:.2f} to {:.2f}".format(*report["seconds_ratio_range"][name])
        print(
            f"{name:15}{report['teacher_weights'][name]:12,.0f}"
            f"{report['seconds'][name]:9.3f}"
            f"{report['seconds_ratio'][name]:7.2f}  {bounds}"
            f"{report['peak_bytes'][name] / 1e6:9.0f}"
            f"{report['peak_bytes_ratio'][name]:7.2f}"
        )


if __name__ == "__main__":
    main()
