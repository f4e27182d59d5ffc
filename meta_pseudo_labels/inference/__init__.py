"""Predictions of trained networks for many images, in CSV and Parquet."""

from meta_pseudo_labels.inference.networks import network_of
from meta_pseudo_labels.inference.run import Predictions, infer_run

__all__ = ["Predictions", "infer_run", "network_of"]
