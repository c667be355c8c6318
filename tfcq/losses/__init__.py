"""Losses: pure functions with one value per example; only the trainer reduces over the batch."""
