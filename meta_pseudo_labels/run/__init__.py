"""One run from settings to a served model, and the command line."""

import os
import sys

if os.path.basename(sys.argv[0]) == "mpl":
    # Its script imports the command line before it calls anything.
    from meta_pseudo_labels.utils.signals import end_on_signals

    end_on_signals()
