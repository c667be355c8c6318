"""What --help and --helpfull show: a command's own flags, and the options of a run by data, training and system."""

import shutil
import textwrap

from tfcq import config
from tfcq.command_line.flags import COMMON, Flags
from tfcq.command_line.options import Entry, entry_of
from tfcq.config.fields import Section, suggestion
from tfcq.errors import UserError

MOST_USED = ("dataset", "image_size", "train_steps", "batch_size", "learning_rate", "seed", "precision", "eval_metrics")
"""Options of data and training that --help shows where no system is named."""

_COLUMN = 26  # where texts begin


def help_text(name: str, description: str, flags: Flags, full: bool = False) -> str:
    """The help of a command, as wide as the terminal (80 columns where there is none).

    Args:
        name: what it is called by.
        description: what it does.
        flags: the command's; a --model among those given is the system whose options are shown.
        full: whether every option of a run is shown.

    Raises:
        UserError: a model that does not exist.
    """
    width = max(shutil.get_terminal_size((80, 24)).columns, 50)
    own = {title: entries for title, entries in flags.groups.items() if title != COMMON}
    common = {COMMON: flags.groups.get(COMMON, [])}
    if not flags.has_configuration:
        groups, end = own | common, ""
    elif full:
        groups, end = own | common | _run_groups() | _shared_groups(), ""
    elif flags.model:
        groups, end = _system_groups(flags.model) | _run_groups() | own | common, ""
    else:
        groups = own | {"What most runs set": [_MODEL, *_options(MOST_USED)]} | common
        end = f"{_systems(width)}\n\n" + _filled(
            f"`{name} --model=NAME --help` shows the options of that system, of data and of training; --helpfull shows "
            "those of all systems.",
            width,
        )
    usage = f"usage: {name} [--flag=value ...]"
    parts = [usage, _description(description, width), *(_group(title, entries, width) for title, entries in groups.items())]
    return "\n\n".join([*parts, end] if end else parts)


_MODEL = Entry("model", "NAME", "Which system is trained, see below (default: cqf).")


def first_sentence(text: str) -> str:
    """Of a docstring, in one line, without its full stop."""
    return " ".join(text.strip().split("\n\n")[0].split()).rstrip(".")


def _systems(width):
    longest = max(map(len, config.SYSTEMS))
    lines = [f"  {name:{longest}}  {first_sentence(section.__doc__)}" for name, section in config.SYSTEMS.items()]
    return "\n".join(["Systems (--model=NAME)", *(line if len(line) < width else _filled(line, width) for line in lines)])


def _options(names):
    homes = {name: section for section in (config.DataConfig, config.TrainingConfig) for name in section.__dataclass_fields__}
    return [entry_of(homes[name], name) for name in names]


def _run_groups():
    return {
        f"{title} (every system)": [entry_of(section, name) for name in section.__dataclass_fields__]
        for title, section in {"Data": config.DataConfig, "Training": config.TrainingConfig}.items()
    }


def _system_groups(model):
    """The options of a system: its own first, then those that it shares, each as it holds for this system."""
    if model not in config.SYSTEMS:
        raise UserError(f"--model={model}: expected one of {', '.join(config.SYSTEMS)}{suggestion(model, config.SYSTEMS)}")
    section = config.SYSTEMS[model]
    groups = {f"{model}: {first_sentence(section.__doc__)}": []}
    for name in section.__dataclass_fields__:
        owner = next(one for one in section.__mro__ if name in _own(one))
        title = next(iter(groups)) if owner is section else first_sentence(owner.__doc__)
        groups.setdefault(title, []).append(entry_of(section, name))
    return groups


def _shared_groups():
    """All options of systems, in groups: those of one system alone, and those that several share."""
    owners = {}
    for system, section in config.SYSTEMS.items():
        for owner in section.__mro__:
            if _own(owner):
                owners.setdefault(owner, []).append(system)
    groups = {}
    for owner, systems in owners.items():
        about = first_sentence(owner.__doc__)
        title = f"{systems[0]}: {about}" if owner in config.SYSTEMS.values() else f"{about} ({', '.join(systems)})"
        groups[title] = [entry_of(owner, name) for name in _own(owner)]
    return groups


def _own(kind):
    """Names of the options that a class adds or redefines itself."""
    return list(vars(kind).get("__annotations__", ())) if issubclass(kind, Section) else []


def _group(title, entries, width):
    return "\n".join([_filled(title, width), *(_entry(entry.usage, entry.text, width) for entry in entries)])


def _entry(usage, text, width):
    """A flag and its text beside it, or below where the flag is long."""
    text = text[:1].upper() + text[1:]
    lines = [line for part in text.split("\n") for line in textwrap.wrap(
        part, width - _COLUMN - 1, subsequent_indent="  " if "\n" in text else "", break_long_words=False, break_on_hyphens=False
    )]
    indent = " " * _COLUMN
    head = f"  {usage}"
    if len(head) + 2 > _COLUMN or not lines:
        return "\n".join([head, *(indent + line for line in lines)])
    return "\n".join([head.ljust(_COLUMN) + lines[0], *(indent + line for line in lines[1:])])


def _description(text, width):
    parts = text.strip("\n").split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else _filled(" ".join(part.split()), width) for part in parts).rstrip()


def _filled(text, width):
    return textwrap.fill(text, width - 1, break_long_words=False, break_on_hyphens=False)
