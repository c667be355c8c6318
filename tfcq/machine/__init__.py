"""What a machine gives and takes: paths, files, terminals, signals, settings. No TensorFlow."""
