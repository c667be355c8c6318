"""The command line: flags made of the configuration, flagfiles and presets, help, and how a command starts and fails.

A command is a `command.Command`. Its flags are defined when it runs, in a table of its own, so that several commands can be
imported and run in one process. No TensorFlow until `starting.start_tensorflow` is called.
"""
