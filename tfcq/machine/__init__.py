"""The operating system as tfcq sees it: paths, files, terminals, signals, settings. Importing them imports no TensorFlow."""
