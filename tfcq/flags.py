"""absl flags generated from `tfcq.config`, and the one way in which the entry points start and fail.

A flag left out is None here, and the dataclass's default holds: a knob is written down once. Systems may share a
knob's name; the flag then tells each one's meaning and goes to the system that `--model` names.
"""

import dataclasses
import os
import sys
import tempfile
import typing

from absl import flags

from tfcq import config, settings
from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError

_DEFINE = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def define_config_flags():
    """Makes one flag for each knob of every section, and `--model`; call it where the entry point's module loads."""
    if "model" in flags.FLAGS:
        return
    flags.DEFINE_string("model", None, f"Which system: {' | '.join(config.SYSTEMS)} (default: cqf).")
    for name, (kind, texts) in _knobs().items():
        _DEFINE[kind](name, None, " ".join(texts))


def define_section_flags(section):
    """Makes one flag for each knob of one section, as an entry point that needs no Config does."""
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        _DEFINE[kinds[field.name]](field.name, None, _help(field))


def section_from_flags(section):
    """An instance of `section` with the knobs that the flags set; UserError where a value is out of bounds."""
    values = {name: flags.FLAGS[name].value for name in _names(section)}
    return section(**{name: value for name, value in values.items() if value is not None})


def _knobs():
    """{flag name: (type, [help text, opened by the systems that it is of])}."""
    knobs = {}
    for system, section in {"data": config.DataConfig, "training": config.TrainingConfig, **config.SYSTEMS}.items():
        kinds = typing.get_type_hints(section)
        for field in dataclasses.fields(section):
            kind, systems_of = knobs.setdefault(field.name, (kinds[field.name], {}))
            if kind is not kinds[field.name]:
                raise TypeError(
                    f"knob {field.name} is {kind.__name__} in one system and {kinds[field.name].__name__} in another"
                )
            systems_of.setdefault(_help(field), []).append(system)
    return {
        name: (
            kind,
            [f"[{', '.join(names)}] {text}" if names[0] in config.SYSTEMS else text for text, names in systems_of.items()],
        )
        for name, (kind, systems_of) in knobs.items()
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
    if not all(choice in facts["meaning"] for choice in choices):  # a meaning that explains them need not repeat them
        bounds.append(f"one of {', '.join(choices)}")
    return f"{text} ({'; '.join([f'default: {field.default}', *unit, *bounds])})."


def config_from_flags():
    """The Config that the flags describe.

    Raises:
        UserError: a value out of bounds, an impossible combination, or a knob that `--model` does not have.
    """
    model = flags.FLAGS.model or "cqf"
    given = given_flags()
    values = {"model": model, "data": {}, "training": {}, "system": {}}
    homes = {"data": config.DataConfig, "training": config.TrainingConfig}
    if model in config.SYSTEMS:
        homes["system"] = config.SYSTEMS[model]
    for name, value in given.items():
        home = [section for section, kind in homes.items() if name in _names(kind)]
        if not home and model in config.SYSTEMS:
            owners = [system for system, kind in config.SYSTEMS.items() if name in _names(kind)]
            raise UserError(f"--{name}: model={model} has no such knob; expected it with model={' or '.join(owners)}")
        for section in home:
            values[section][name] = value
    return config.Config.from_dict(values)


def given_flags():
    """{name: value} of the knobs that the command line or a flagfile set."""
    values = {name: flags.FLAGS[name].value for name in _knobs()}
    return {name: value for name, value in values.items() if value is not None}


def _names(section):
    return {field.name for field in dataclasses.fields(section)}


def flagfile_name(argv):
    """NAME of the last --flagfile=.../NAME.cfg on the command line, or None.

    Raises:
        UserError: an empty file name, which absl passes over: an unset shell variable would train the defaults.
    """
    name = None
    for here, following in zip(argv, [*argv[1:], ""]):
        flag, equals, path = here.partition("=")
        if flag in ("--flagfile", "-flagfile"):
            path = path if equals else following
            if not path:
                raise UserError("--flagfile: expected the name of a file, received an empty one")
            name = path.rpartition("/")[2].removesuffix(".cfg")
    return name


def run(main):
    """Parses the command line, calls `main()` and exits: 0, or an error's one line on stderr and its status.

    A user's mistake exits 2, a run that diverged 1, an interrupted one 130 (Ctrl-C) or 143 (SIGTERM).
    """
    from absl import app

    app.define_help_flags()
    for flag in flags.FLAGS.get_flags_for_module(__name__):  # --help shows them as the entry point's own
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    try:
        rest = flags.FLAGS(sys.argv)
    except flags.Error as error:
        _fail(UserError(" ".join(str(error).split())))
    except UnicodeDecodeError as error:
        _fail(UserError(f"--flagfile: expected a text file with one --flag=value a line, received bytes: {error}"))
    except SystemExit:  # --help and its kin print and leave with 1, which scripts read as a failure
        sys.exit(0)
    if len(rest) > 1:
        _fail(UserError(f"expected only --flags, received {rest[1]!r}"))
    try:
        main()
    except (UserError, TrainingDiverged, TrainingInterrupted) as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(TrainingInterrupted(2, 0), "interrupted")
    sys.exit(0)


def start_tensorflow():
    """Imports TensorFlow without the dozen lines about its build that it writes to stderr; they are shown if it fails.

    Entry points call it once the flags are known to be right, which takes a tenth of a second; this takes five.

    Raises:
        UserError: a setting of the machine that would change a run: see `tfcq.settings`.
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
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _fail(error, text=None):
    print(f"error: {text or error}", file=sys.stderr, flush=True)
    sys.exit(error.exit_status)
