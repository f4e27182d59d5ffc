"""Serves an exported model over HTTP, for trials and tests.

    python serve.py --saved_model=runs/mpl/saved_model --port=8501

See `meta_pseudo_labels.export.serving`.
"""

from meta_pseudo_labels.export.serving.__main__ import main

if __name__ == "__main__":
    main()
