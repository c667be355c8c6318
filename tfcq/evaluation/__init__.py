"""Streams data and samples through a model: numbers with their protocol, and pictures."""
