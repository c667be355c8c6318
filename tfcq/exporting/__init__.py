"""From a workdir to a SavedModel that TF Serving loads."""
