"""`python -m meta_pseudo_labels`, the same as the command `mpl`."""

if __name__ == "__main__":
    from meta_pseudo_labels.utils.signals import end_on_signals

    end_on_signals()
    from meta_pseudo_labels.run.cli import main

    main()
