"""Training of any model: the train_step, its players, running means, optimizers, checkpoints, devices."""
