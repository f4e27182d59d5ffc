"""A small server for exported models, for trials and tests; see serve.py.

It stands apart from meta_pseudo_labels, of which it needs nothing, and neither
does it need Keras.
"""
