"""What a machine gives and takes: paths, files, terminals, signals, settings. Importing them imports no TensorFlow."""
