"""`python -m meta_pseudo_labels`, the same as the command `mpl`."""

from meta_pseudo_labels.run.cli import main

if __name__ == "__main__":
    main()
