"""How any model is trained and kept: the one train_step, its players, running means, optimizers, checkpoints, devices."""
