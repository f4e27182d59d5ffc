"""How closely the release's recorded runs are reproduced, step by step.

    python -m benchmarks.release_parity.run ../shared/reference

Replays every trace in a folder three times: in float64, in float32 with each
step starting from the float64 run, and in float32 left to itself (see
`meta_pseudo_labels.replay`). Prints, for each step, the largest error of all
logged scalars, relative to max(1, |recorded|).
"""

import pathlib

import numpy as np

from benchmarks.common.arguments import benchmark_parser, parsed, write_report
from benchmarks.common.machine import headline, machine_facts
from meta_pseudo_labels import replay

MODES = {
    "float64": ("log64/", dict(dtype="float64")),
    "float32": ("log/", dict(dtype="float32")),
    "float32 left to itself": (
        "log/",
        dict(dtype="float32", free_running=True),
    ),
}


def main():
    settings = parse_arguments()
    report = {"machine": machine_facts(), "errors": {}}
    print(headline(report["machine"]))
    for path in sorted(settings.folder.glob("*.npz")):
        trace = read_trace(path)
        if trace is None:
            continue
        report["errors"][path.stem] = found = {}
        for mode, (recorded, how) in MODES.items():
            errors = errors_by_step(replay(path, **how), trace, recorded)
            found[mode] = errors.tolist()
            steps = " ".join(f"{error:.0e}" for error in errors)
            print(f"{path.stem:22} {mode:24} {steps}", flush=True)
    write_report(report, settings.json)


def parse_arguments():
    parser = benchmark_parser(__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="folder of traces")
    return parsed(parser)


def read_trace(path):
    """The arrays of a trace; None if the file is not a trace."""
    with np.load(path, allow_pickle=False) as file:
        if "hparams_json" not in file.files:
            return None
        return {name: file[name] for name in file.files}


def errors_by_step(results, trace, recorded):
    """The largest error of all logged scalars, [steps]."""
    errors = []
    for name, wanted in trace.items():
        if name.startswith(recorded):
            actual = results[name.replace(recorded, "log/")]
            error = np.abs(actual - wanted) / np.maximum(1, np.abs(wanted))
            errors.append(error)
    return np.max(errors, axis=0)


if __name__ == "__main__":
    main()
