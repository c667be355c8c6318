"""Commands in one process, one after the other, and the command `tfcq`."""

import re
import signal
import subprocess
import sys

import pytest
from commands import REPOSITORY, assert_one_line, command_of, run_here

import tfcq
from tfcq import __main__ as console
from tfcq.command_line.command import Command


def test_commands_run_one_after_the_other_in_one_process(monkeypatch, capsys, tmp_path):
    """Neither flags, nor handlers of signals, nor stdout are left behind."""
    monkeypatch.chdir(tmp_path)
    seen, before = [], (signal.getsignal(signal.SIGTERM), sys.stdout)

    def define(flags):
        flags.integer("count", 1, "How many")

    first = Command("first", "One.", define, lambda flags: seen.append(flags.count), outlives_stdout=True)
    second = Command("second", "Two.", define, lambda flags: 7)
    assert [first.run(["--count=3"]), second.run([]), first.run([])] == [0, 7, 0]
    assert seen == [3, 1] and (signal.getsignal(signal.SIGTERM), sys.stdout) == before
    assert [command_of(name).run(["--workdir=none"]) for name in ("evaluate", "sample", "evaluate")] == [2, 2, 2]
    assert capsys.readouterr().err.count("workdir none: expected a trained run") == 3


def test_a_flag_that_a_method_would_hide_is_refused():
    for name in ("folder", "arguments"):
        command = Command("one", "One.", lambda flags: flags.folder(name, "a", "The folder of it"), lambda flags: None)  # noqa: B023
        with pytest.raises(ValueError, match=f"flags {name}: `Flags` has an attribute of this name; expected another"):
            command.flags()


@pytest.mark.long
def test_entry_points_can_be_imported_together():
    program = """if True:
        import sys
        import tfcq.train, tfcq.evaluate, tfcq.sample, tfcq.score, tfcq.encode
        import tfcq.export, tfcq.serve, tfcq.demo, tfcq.reproduce, tfcq.benchmark
        from tfcq.command_line import starting

        starting.start_tensorflow()
        unused = ("sklearn", "matplotlib")  # Keras would import them; see `tfcq.machine.settings.without_optional_imports`
        assert "keras" in sys.modules and not sys.modules.keys() & unused, sys.modules.keys() & unused
        import matplotlib.pyplot, sklearn.base
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600, cwd=REPOSITORY)


@pytest.mark.parametrize("name", console.COMMANDS)
def test_every_command_says_the_version_and_its_name(name):
    assert run_here(name, "--version") == (0, f"tfcq {tfcq.__version__}\n", "")
    assert run_here(name, "--helpfull", "--version", "--no_such_flag")[1] == f"tfcq {tfcq.__version__}\n"
    assert command_of(name).name == f"tfcq {name}"


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        Command("faulty", "Fails.", lambda flags: None, lambda flags: 1 // 0).run([])


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_console_lists_the_commands(capsys, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    assert console.main(arguments) == 0
    output = capsys.readouterr().out
    assert re.findall(r"^  (\w+) ", output, re.MULTILINE) == list(console.COMMANDS)
    assert max(map(len, output.splitlines())) < 80
    entry_points = {path.stem for path in (REPOSITORY / "tfcq").glob("*.py") if "COMMAND = Command(" in path.read_text()}
    assert entry_points == set(console.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "received 'trian' (did you mean train?)"),
        (["--preset=quickstart"], "expected a command, one of train, evaluate,"),
        ([], "received none (see tfcq --help)"),
        (["evaluate", "--workdir=nowhere"], "workdir nowhere: expected a trained run"),
        (["train", "evaluate"], "expected only --flags, received 'evaluate'"),
    ],
    ids=" ".join,
)
def test_mistakes_of_the_console(capsys, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert_one_line(console.main(arguments), capsys.readouterr().err, expected)


def test_the_console_hands_on_and_says_the_version(capsys):
    assert console.main(["--version"]) == console.main(["train", "--version"]) == 0
    assert capsys.readouterr().out == f"tfcq {tfcq.__version__}\n" * 2
