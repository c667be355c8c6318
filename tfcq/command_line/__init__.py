"""The command line: flags made from the configuration, flagfiles and presets, help, and how commands start and fail.

A command is a `command.Command`. Its flags are defined when it runs, in a table of its own, so that several commands can be
imported and run in one process. TensorFlow is imported only by `starting.start_tensorflow`.
"""
