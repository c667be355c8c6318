"""absl flags generated from `tfcq.config`, and the one way in which the entry points start and fail.

A flag left out is None here, and the dataclass's default holds: an option is written down once. Systems may share a
option's name; the flag then tells each one's meaning and goes to the system that `--model` names.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import typing

from absl import flags

from tfcq import config
from tfcq.config import flagfiles
from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError
from tfcq.machine import paths, settings, terminal
from tfcq.machine.interruption import Signals, Stopped

_DEFINE = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def define_config_flags():
    """Makes one flag for each option of every section, and `--model`; call it where the entry point's module loads."""
    if "model" in flags.FLAGS:
        return
    flags.DEFINE_string("model", None, f"Which system: {' | '.join(config.SYSTEMS)} (default: cqf).")
    for name, (kind, texts) in _options().items():
        _DEFINE[kind](name, None, " ".join(texts))


def define_section_flags(section):
    """Makes one flag for each option of one section, as an entry point that needs no Config does."""
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        _DEFINE[kinds[field.name]](field.name, None, _help(field))


class _PathParser(flags.ArgumentParser):
    """Of a flag whose value is a path; check: `paths.folder` or `paths.file`."""

    def __init__(self, check, name):
        self._check, self._name = check, name

    def parse(self, argument):
        return self._check(argument, self._name)

    def flag_type(self):
        return "path"


class _FoldersParser(flags.ListParser):
    """Of a flag whose value is folders separated by commas, as in CSV: one with a comma in its name stands in double quotes."""

    def __init__(self, name):
        super().__init__()
        self._name = name

    def parse(self, argument):
        return [paths.folder(path, self._name) for path in super().parse(argument)]


def define_folder(name, default, meaning, **options):
    """Makes a flag that is a folder: a pathlib.Path that `paths.folder` has checked, or None. Options are of flags.DEFINE."""
    return flags.DEFINE(_PathParser(paths.folder, name), name, default, meaning, flags.FLAGS, **options)


def define_folders(name, default, meaning):
    """Makes a flag that is several folders separated by commas: a list of pathlib.Path that `paths.folder` has checked."""
    return flags.DEFINE(_FoldersParser(name), name, default, meaning, flags.FLAGS)


def define_file(name, default, meaning):
    """Makes a flag that is a file: a pathlib.Path that `paths.file` has checked, or None."""
    return flags.DEFINE(_PathParser(paths.file, name), name, default, meaning, flags.FLAGS)


def section_from_flags(section):
    """An instance of `section` with the options that the flags set; UserError where a value is out of bounds."""
    values = {name: flags.FLAGS[name].value for name in _names(section)}
    return section(**{name: value for name, value in values.items() if value is not None})


def _options():
    """{flag name: (type, [help text, opened by the systems that it is of])}."""
    options = {}
    for system, section in {"data": config.DataConfig, "training": config.TrainingConfig, **config.SYSTEMS}.items():
        kinds = typing.get_type_hints(section)
        for field in dataclasses.fields(section):
            kind, systems_of = options.setdefault(field.name, (kinds[field.name], {}))
            if kind is not kinds[field.name]:
                raise TypeError(
                    f"option {field.name} is {kind.__name__} in one system and {kinds[field.name].__name__} in another"
                )
            systems_of.setdefault(_help(field), []).append(system)
    return {
        name: (
            kind,
            [f"[{', '.join(names)}] {text}" if names[0] in config.SYSTEMS else text for text, names in systems_of.items()],
        )
        for name, (kind, systems_of) in options.items()
    }


def _help(field):
    facts = field.metadata
    bounds = [
        f"{word} {facts[key]}"
        for word, key in (("at least", "minimum"), ("at most", "maximum"))
        if facts[key] is not None
    ]
    text, words = facts["meaning"], facts["meaning"].split()
    choices = [str(choice) for choice in facts["choices"] or ()]
    if words[1:2] != ["|"] and words[0].strip(":") not in choices:  # a value keeps its case
        text = text[0].upper() + text[1:]
    unit = [f"in {facts['unit']}"] if facts["unit"] else []
    if facts["on_resume"] == "place":
        bounds.append("may lead to another place of the same content when a run is resumed")
    elif facts["on_resume"] != "fixed":
        bounds.append("may change when a run is resumed")
    if not all(choice in facts["meaning"] for choice in choices):  # a meaning that explains them need not repeat them
        bounds.append(f"one of {', '.join(choices)}")
    return f"{text} ({'; '.join([f'default: {field.default}', *unit, *bounds])})."


def config_from_flags(base=None):
    """The Config that the flags describe: `base` with what they set; None, or another model's: the defaults with that.

    Raises:
        UserError: a value out of bounds, an impossible combination, or an option that `--model` does not have.
    """
    model = flags.FLAGS.model or (base.model if base else "cqf")
    given = given_flags()
    values = {"model": model, "data": {}, "training": {}, "system": {}}
    if base and base.model == model:
        values = base.to_dict()
    homes = {"data": config.DataConfig, "training": config.TrainingConfig}
    if model in config.SYSTEMS:
        homes["system"] = config.SYSTEMS[model]
    for name, value in given.items():
        home = [section for section, kind in homes.items() if name in _names(kind)]
        if not home and model in config.SYSTEMS:
            owners = [system for system, kind in config.SYSTEMS.items() if name in _names(kind)]
            raise UserError(f"--{name}: model={model} has no such flag; it belongs to model={' or '.join(owners)}")
        for section in home:
            values[section][name] = value
    return config.Config.from_dict(values)


def given_flags():
    """{name: value} of the options that the command line or a flagfile set."""
    values = {name: flags.FLAGS[name].value for name in _options()}
    return {name: value for name, value in values.items() if value is not None}


def _names(section):
    return {field.name for field in dataclasses.fields(section)}


def flagfile_name(argv):
    """NAME of the last --flagfile=.../NAME.cfg on the command line, or None."""
    name = None
    for here, following in zip(argv, [*argv[1:], ""]):
        flag, equals, path = here.partition("=")
        if flag in ("--flagfile", "-flagfile"):
            name = (path if equals else following).rpartition("/")[2].removesuffix(".cfg")
    return name


def parse(arguments):
    """Reads a command line (a list of str, the program's name first) into absl's flags; flagfiles by `tfcq.config.flagfiles`.

    Raises:
        UserError: an unknown flag, a value that does not fit, what is no flag, or a mistake in a flagfile.
    """
    try:
        rest = flags.FLAGS([arguments[0], *flagfiles.expand(arguments[1:], flags.FLAGS)])
    except flags.Error as error:
        raise UserError(flagfiles.in_plain_words(error)) from error
    if len(rest) > 1:
        raise UserError(f"expected only --flags, received {rest[1]!r}; a value with blanks needs quotes")


def run(main, outlives_stdout=False):
    """Parses the command line, calls `main()` and exits: 0, or an error's one line on stderr and its status.

    A user's mistake exits 2, a run that diverged 1, an interrupted one 130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP).

    Args:
        main: function without arguments.
        outlives_stdout: whether it goes on where nobody reads stdout any more (`| head`), as its results are files. Otherwise
            a BrokenPipeError of `main` ends the process without a word, with 141 as shells have it.
    """
    from absl import app

    terminal.open_standard_streams()
    for stream in (sys.stdout, sys.stderr):  # a file's name may have letters that a terminal's encoding has not
        stream.reconfigure(errors="backslashreplace")
    app.define_help_flags()
    for flag in flags.FLAGS.get_flags_for_module(__name__):  # --help shows them as the entry point's own
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    try:
        try:
            parse(sys.argv)
        except SystemExit:  # --help and its kin print and leave with 1, which scripts read as a failure
            sys.stdout.flush()
            sys.exit(0)
        with terminal.outlived_stdout() if outlives_stdout else contextlib.nullcontext(), Signals() as signals:
            try:
                with signals.at_once():
                    main()
            except KeyboardInterrupt:
                _fail(TrainingInterrupted(signal.SIGINT, None), "interrupted")
            except Stopped:
                _fail(TrainingInterrupted(signals.received, None), f"signal {signals.received}: interrupted")
            sys.stdout.flush()
    except (UserError, TrainingDiverged, TrainingInterrupted) as error:
        _fail(error)
    except BrokenPipeError:
        terminal.discard(sys.stdout)
        sys.exit(128 + signal.SIGPIPE)
    sys.exit(0)


def start_tensorflow():
    """Imports TensorFlow without the dozen lines about its build that it writes to stderr; they are shown if it fails.

    Entry points call it once the flags are known to be right, which takes a tenth of a second; this takes five.

    Raises:
        UserError: a setting of the machine that would change a run: see `tfcq.machine.settings`.
    """
    settings.check_environment()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            settings.import_tensorflow()
            import tensorflow as tf

            tf.config.list_physical_devices()
        except UserError:
            raise
        except Exception:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _fail(error, text=None):
    text = str(text or error)
    line = "".join(each if paths.is_one_line(each) else each.encode("unicode_escape").decode() for each in text)
    try:
        terminal.clear()
        print(f"error: {line}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it; the status tells
        terminal.discard(sys.stdout)
        terminal.discard(sys.stderr)
    sys.exit(error.exit_status)
