"""Pure functions, one value per example; the trainer alone reduces over the batch."""
