"""Evaluation of a model on streamed data and samples: numbers with their protocol, and pictures."""
