"""Kills one of two workers, starts both again, compares with two undisturbed.

    python -m tests.faults.kill_worker --seed 0 --json kill_worker.json

Two processes on this machine train the digits together. One is killed with
SIGKILL at a random moment after a checkpoint; the other must stop and say so.
Both are started again by the same commands, and must end with the weights of
two workers that nothing happened to, bit for bit.
"""

import argparse
import json
import pathlib
import random
import signal
import sys
import tempfile
import time

from tests.faults import runs


def kill_one_of_two(folder, *, seed):
    """Returns what happened, a dict for JSON."""
    folder, choose = pathlib.Path(folder), random.Random(seed)
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    _finish(_start_both(undisturbed))

    victim, step = choose.randrange(2), choose.choice([10, 20, 30])
    processes = _start_both(killed)
    runs.wait_for_step(killed, step, process=processes[0])
    time.sleep(choose.random())
    processes[victim].send_signal(signal.SIGKILL)
    processes[victim].wait()
    start = time.monotonic()
    survivor = processes[1 - victim].wait(timeout=300)
    noticed = time.monotonic() - start
    words = runs.said(killed, f"--worker_index={1 - victim}")
    _finish(_start_both(killed))
    different = runs.differences(killed, undisturbed)
    return {
        "seed": seed,
        "victim": victim,
        "killed_after_step": step,
        "survivor_exit": survivor,
        "survivor_told": "lost one another" in words,
        "seconds_to_notice": round(noticed, 1),
        "variables": len(runs.final_weights(killed)),
        "different": different,
        "identical": not different,
    }


def _start_both(output_dir):
    return [runs.start(output_dir, *flags) for flags in runs.worker_flags(2)]


def _finish(processes):
    codes = [process.wait(timeout=600) for process in processes]
    if any(codes):
        raise RuntimeError(f"Workers ended with {codes}; see their logs.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_one_of_two(folder, seed=arguments.seed)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    sys.exit(0 if result["identical"] else 1)


if __name__ == "__main__":
    main()
