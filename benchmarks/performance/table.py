"""Writes the table of docs/performance.md from benchmarks/results.

python -m benchmarks.performance.table
"""

import json

from benchmarks.common.documents import with_part
from benchmarks.common.machine import RESULTS, ROOT
from benchmarks.step_time.variants import IN_BFLOAT16

DOCUMENT = ROOT / "docs" / "performance.md"
PART = "performance"
_HEAD = "| What | Peer | Ratio | Command | Date |\n|---|---|---|---|---|\n"
# File of results: the command that writes it.
COMMANDS = {
    "step_time": "step_time.run --torch --bfloat16 --teacher --rounds=9",
    "fit_time": "fit_time.run --rounds=9 --steps=8 --tiny_steps=200",
    "input_pipeline": "input.run",
    "serving": "serving.run",
    "memory": "memory.run",
    "scaling": "scaling.run",
    "inference": "inference.run",
    "starts": "starts.run",
}


def main():
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_part(text, PART, table()), encoding="utf-8")


def table():
    """All rows, Markdown."""
    lines = [_HEAD]
    for name, command in COMMANDS.items():
        path = RESULTS / f"{name}.json"
        report = json.loads(path.read_text(encoding="utf-8"))
        date = report["machine"]["date"]
        lines += [
            f"| {what} | {peer} | {ratio} | `{command}` | {date} |\n"
            for what, peer, ratio in _ROWS[name](report)
        ]
    return "".join(lines)


def ratio_cell(ratio, quartiles=None):
    """0.85 (0.76 to 0.94), with quartiles in parentheses if known."""
    if quartiles is None:
        return f"{ratio:.2f}"
    low, high = quartiles
    return f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _step_time(report):
    for peer, ratio in report["release_to_torch"].items():
        quartiles = report["release_to_torch_quartiles"][peer]
        cell = ratio_cell(ratio, quartiles)
        ours = "time of a step, `release`"
        if peer.endswith(IN_BFLOAT16):
            ours = "time of a step in bfloat16, `release`"
        yield ours, f"{peer}, the same step", cell
    for name, ratio in report["ratio"].items():
        cell = ratio_cell(ratio, report["ratio_quartiles"][name])
        yield f"time of a step, `{name}`", "its bare passes", cell
    for name, ratio in report["to_float32"].items():
        cell = ratio_cell(ratio, report["to_float32_quartiles"][name])
        name = name.removesuffix(IN_BFLOAT16)
        yield f"time of a step in bfloat16, `{name}`", "in float32", cell
    for name, ratio in report["to_uda"].items():
        cell = ratio_cell(ratio, report["to_uda_quartiles"][name])
        yield f"time of a step, {name}", "a step of UDA", cell


def _fit_time(report):
    for size in ("large", "tiny"):
        for name, ratio in report[size]["ratio"].items():
            if name != "bare loop":
                what = f"time of `{name.replace('fit', 'fit`', 1)}"
                model = report[size]["model"]
                yield what, f"a bare loop, {model}", ratio_cell(ratio)


def _input(report):
    for peer, ratio in report["ratio"].items():
        cell = ratio_cell(ratio, report["ratio_quartiles"][peer])
        yield "strong views a second", peer, cell
    cell = ratio_cell(report["imagenet_over_bare"])
    yield "views of ImageNet a second", "decoding and cropping alone", cell
    cell = f"{report['waiting']['share']:.3f}"
    yield "waiting for batches", "the time of steps", cell


def _serving(report):
    rows = {(r["request"], r["clients"]): r for r in report["rows"]}
    for (request, clients), row in rows.items():
        one = rows[request, 1]["images_per_second"]
        if clients > 1:
            cell = ratio_cell(row["images_per_second"] / one)
            what = f"answers a second, {request}, {clients} clients"
            yield what, "one client", cell


def _memory(report):
    *_, last = report["cells"]
    size = last["batch_size"], last["unlabeled_ratio"]
    cells = {
        cell["variant"]: cell["gib"]
        for cell in report["cells"]
        if (cell["batch_size"], cell["unlabeled_ratio"]) == size
    }
    plain = cells.pop("plain")
    for variant, gib in cells.items():
        what = f"peak of a step, {variant}, B = {size[0]}, mu = {size[1]}"
        yield what, "the plain step", ratio_cell(gib / plain)


def _scaling(report):
    for row in report["steps"]:
        cell = ratio_cell(row["together_ms"] / row["predicted_ms"])
        yield f"two processes, a step of {row['model']}", "as predicted", cell


def _inference(report):
    model = report["settings"]["model"]
    for way, ratio in report["ratio"].items():
        cell = ratio_cell(ratio, report["ratio_quartiles"][way])
        yield f"images a second, {way}", f"`model.predict`, {model}", cell


def _starts(report):
    for name, ratio in report["ratio"].items():
        cell = ratio_cell(ratio, report["ratio_quartiles"][name])
        steps = "traces" in report["parts"][name]
        what = "to the first step" if steps else "to answer"
        yield f"time {what}, {name}", "importing TensorFlow and Keras", cell


_ROWS = {
    "step_time": _step_time,
    "fit_time": _fit_time,
    "input_pipeline": _input,
    "serving": _serving,
    "memory": _memory,
    "scaling": _scaling,
    "inference": _inference,
    "starts": _starts,
}


if __name__ == "__main__":
    main()
