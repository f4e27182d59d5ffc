"""Trains, finetunes, evaluates, exports and predicts from the command line.

    python main.py --flagfile=flags/digits_mpl.flags --output_dir=runs/mpl

Run it again with --task_mode=finetune, eval or export. Repeating a command
continues a run that was interrupted. See `meta_pseudo_labels.run.cli`, which an
installed package runs as the command `mpl`.
"""

import sys

if __name__ == "__main__":
    from meta_pseudo_labels.utils.signals import end_on_signals

    end_on_signals()
    from meta_pseudo_labels.run.cli import run

    run(sys.argv[0], sys.argv[1:])
