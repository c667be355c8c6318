"""TFP distributions and bijectors without weights of their own."""
