"""The encoders, decoders and discriminators, and the blocks they are made of: import each from its own file."""
