"""From a Config to a trained workdir."""
