"""Exports the model of a workdir as a SavedModel for TF Serving."""
