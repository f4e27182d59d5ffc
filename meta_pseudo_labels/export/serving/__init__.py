"""A small server for exported models, for trials and tests.

    mpl serve --saved_model=runs/mpl/saved_model

It needs nothing of the rest of the package, and neither does it need Keras.
"""
