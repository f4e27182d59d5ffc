"""A small server for exported models, for trials and tests.

    mpl serve --saved_model=runs/mpl/saved_model

It needs neither the rest of the package nor Keras.
"""
