"""Encoders, decoders and discriminators, and their building blocks: import each from its own module."""
