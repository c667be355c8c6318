"""Flagfiles as people write them: each line works as one would expect, or is refused with file and line."""

import itertools
import re

import pytest
from absl import flags as absl_flags

from tfcq.command_line import flagfiles
from tfcq.errors import UserError


@pytest.fixture
def values():
    """FlagValues with one flag of each kind."""
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_integer("batch_size", None, "An integer.", flag_values=values)
    absl_flags.DEFINE_float("learning_rate", None, "A number.", flag_values=values)
    absl_flags.DEFINE_bool("jit_compile", None, "Either.", flag_values=values)
    absl_flags.DEFINE_string("dataset", None, "Any text.", flag_values=values)
    absl_flags.DEFINE_enum("mode", None, ["prior", "reconstruct"], "One of two.", flag_values=values)
    absl_flags.DEFINE_list("metrics", None, "Several.", flag_values=values)
    return values


@pytest.fixture
def read(values, tmp_path, monkeypatch):
    """Function from the bytes of a flagfile to {name: value} of the flags that it sets."""
    monkeypatch.chdir(tmp_path)

    def read(content, *more):
        (tmp_path / "f.cfg").write_bytes(content if isinstance(content, bytes) else content.encode())
        assert values(["program", *flagfiles.expand(["--flagfile=f.cfg", *more], values)]) == ["program"]
        return {name: values[name].value for name in values if values[name].present}

    return read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--batch_size=32  # small", {"batch_size": 32}),
        ("--batch_size=32\t#\tsmall", {"batch_size": 32}),
        ("--batch_size=32 #small", {"batch_size": 32}),  # no number has it behind it
        ("--batch_size=32 ## small", {"batch_size": 32}),
        ("--batch_size=32 // small", {"batch_size": 32}),
        ("--mode=prior #best", {"mode": "prior"}),
        ("--jit_compile # fast", {"jit_compile": True}),
        ("--jit_compile=false # slow", {"jit_compile": False}),
        ("--nojit_compile  # slow", {"jit_compile": False}),
        ("--dataset=folder:/a b # all of them", {"dataset": "folder:/a b"}),
        ("--dataset=folder:a#b", {"dataset": "folder:a#b"}),
        ("--dataset=folder:a#b # more", {"dataset": "folder:a#b"}),
        ("--dataset=folder:a//b", {"dataset": "folder:a//b"}),
        ("--dataset=#a", {"dataset": "#a"}),
        ('--dataset="folder:/a b"', {"dataset": "folder:/a b"}),
        ("--dataset='folder:/a b'  # quoted", {"dataset": "folder:/a b"}),
        ('--dataset="folder:/a #b"# quoted', {"dataset": "folder:/a #b"}),
        ('--dataset="folder:/a # b"', {"dataset": "folder:/a # b"}),
        ('--dataset="it\'s --this=one"', {"dataset": "it's --this=one"}),
        ("--dataset='say \"a\" \"b\"'", {"dataset": 'say "a" "b"'}),
        ("--dataset=it's", {"dataset": "it's"}),
        ('--batch_size="32"', {"batch_size": 32}),
        ('--dataset=""', {"dataset": ""}),
        ("--dataset=", {"dataset": ""}),
        ("--dataset=  # none", {"dataset": ""}),
        ("--batch_size = 32", {"batch_size": 32}),
        ("\t--batch_size\t=\t32\t", {"batch_size": 32}),
        ("--batch_size 32", {"batch_size": 32}),
        ("--dataset folder:/a b", {"dataset": "folder:/a b"}),
        ("-batch_size=32", {"batch_size": 32}),
        ("--learning_rate=-1e-3", {"learning_rate": -1e-3}),
        ("--dataset=-", {"dataset": "-"}),
        ("--dataset=folder:/a=b", {"dataset": "folder:/a=b"}),
        ("--dataset=\u00fcber/\u56fe", {"dataset": "\u00fcber/\u56fe"}),
        ("--metrics=a,b", {"metrics": ["a", "b"]}),
        ("--batch_size=1\r\n\r\n--mode=prior\r\n# end\r\n", {"batch_size": 1, "mode": "prior"}),
        ("--batch_size=1\r--mode=prior", {"batch_size": 1, "mode": "prior"}),  # Macintosh of old
        (b"\xef\xbb\xbf--batch_size=1\n\xef\xbb\xbf--mode=prior", {"batch_size": 1, "mode": "prior"}),
        (b"\xef\xbb\xbf# first\n--batch_size=1", {"batch_size": 1}),
        ("  # indented\n\t// too\n\n  \n--batch_size=1", {"batch_size": 1}),
        ("", {}),
        ("--batch_size=1\n--batch_size=2", {"batch_size": 2}),
    ],
    ids=repr,
)
def test_what_works(read, text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("--batch_size=1\nmode=prior", 2, "expected --name=value"),
        ("batch_size 32", 1, "expected --name=value"),
        ("\u2014batch_size=32", 1, "expected --name=value"),  # a word processor's dash
        ('"--batch_size=32"', 1, "expected --name=value"),
        ("python -m tfcq.train", 1, "expected --name=value"),
        ("--", 1, "expected --name=value"),
        ("# one\n\n--batch_sise=32", 3, "unknown flag --batch_sise (did you mean batch_size?)"),
        ("--batch-size=32", 1, "unknown flag --batch-size (did you mean batch_size?)"),
        ("--nobatch_size", 1, "unknown flag --nobatch_size"),
        ("--batch_size=many  # of them", 1, "--batch_size=many: expected an integer, received 'many'"),
        ("--batch_size=8.5", 1, "expected an integer, received '8.5'"),
        ("--batch_size=", 1, "expected an integer, received ''"),
        ("--batch_size", 1, "expected --batch_size=VALUE"),
        ("--batch_size\n32", 1, "expected --batch_size=VALUE"),
        ("--batch_size # 32", 1, "expected --batch_size=VALUE"),
        ("--learning_rate=fast", 1, "expected a number, received 'fast'"),
        ("--jit_compile=perhaps", 1, "expected true or false"),
        ("--jit_compile true", 1, "expected --jit_compile, --nojit_compile or --jit_compile=true"),
        ("--nojit_compile=true", 1, "expected --jit_compile, --nojit_compile or --jit_compile=true"),
        ("--mode=dream", 1, "prior|reconstruct"),
        ("--dataset=folder:/a #b", 1, "is '#b' a comment or part of the value?"),
        ("--dataset=folder:/a //b", 1, "is '//b' a comment or part of the value?"),
        ('--dataset="folder:/a b', 1, "has no end"),
        ('--dataset="folder:/a" b', 1, "expected quotes around the whole value"),
        ('--dataset=folder:"/a b"', 1, "expected quotes around the whole value"),
        ("--batch_size=32 --mode=prior", 1, "one flag a line"),
        ("--dataset=digits --mode=prior", 1, "one flag a line"),
        ("--dataset=digits \\\n--mode=prior", 1, "one flag a line"),
        ("--dataset=a\0b", 1, "control character"),
        (b"--batch_size=1\n--dataset=\xfcber", 2, "expected a text file in UTF-8"),
        (b"\xff\xfe-\0-\0b\0", 1, "expected a text file in UTF-8"),
    ],
    ids=repr,
)
def test_what_is_refused(read, text, line, reason):
    with pytest.raises(UserError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith(f"f.cfg, line {line}: ") and reason in message and "\n" not in message


def test_what_comes_later_overrides_in_files_and_beside_them(read, tmp_path):
    (tmp_path / "inner.cfg").write_text("--batch_size=2\n--mode=prior\n")
    outer = "--batch_size=1\n--flagfile=inner.cfg  # the usual\n--mode=reconstruct\n"
    assert read(outer) == {"batch_size": 2, "mode": "reconstruct"}
    assert read(outer, "--batch_size=3", "--jit_compile") == {"batch_size": 3, "mode": "reconstruct", "jit_compile": True}


@pytest.mark.parametrize(
    "form", ['--flagfile="in ner.cfg"', "--flagfile in ner.cfg", "-flagfile = in ner.cfg", "--flagfile=~/in ner.cfg"]
)
def test_a_file_that_a_file_includes(read, tmp_path, monkeypatch, form):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in ner.cfg").write_text("--batch_size=2")
    assert read(form) == {"batch_size": 2}


def test_mistakes_of_an_included_file_are_told_with_its_own_line(read, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner.cfg").write_text("\n--batch_size=many")
    with pytest.raises(UserError, match=re.escape("sub/inner.cfg, line 2: ")):
        read("--flagfile=sub/inner.cfg")
    with pytest.raises(UserError, match=r"f.cfg, line 2: --flagfile=nowhere.cfg: cannot be read: No such file"):
        read("--mode=prior\n--flagfile=nowhere.cfg")
    (tmp_path / "sub" / "outer.cfg").write_text("--flagfile=inner.cfg")
    with pytest.raises(UserError) as caught:
        read("--flagfile=sub/outer.cfg")
    assert str(caught.value).startswith("sub/outer.cfg, line 1: --flagfile=inner.cfg: cannot be read: No such file")
    assert str(caught.value).endswith("(a path is from the current folder: did you mean sub/inner.cfg?)")


def test_files_that_include_each_other(read, tmp_path):
    (tmp_path / "other.cfg").write_text("--flagfile=f.cfg")
    expected = "other.cfg, line 1: --flagfile=f.cfg: includes itself (f.cfg -> other.cfg -> f.cfg)"
    with pytest.raises(UserError, match=re.escape(expected)):
        read("--mode=prior\n--flagfile=other.cfg")
    # Twice, one after the other, is no circle.
    (tmp_path / "twice.cfg").write_text("--batch_size=1")
    assert read("--flagfile=twice.cfg\n--flagfile=twice.cfg") == {"batch_size": 1}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--flagfile"], "--flagfile with no argument"),
        (["--flagfile="], "--flagfile: expected the name of a file, received an empty one"),
        (["--flagfile", ""], "--flagfile: expected the name of a file, received an empty one"),
        (["--flagfile=nowhere.cfg"], "--flagfile=nowhere.cfg: cannot be read: No such file or directory"),
        (["--flagfile=."], "--flagfile=.: cannot be read: Is a directory"),
    ],
    ids=" ".join,
)
def test_a_flagfile_that_is_none(values, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        flagfiles.expand(arguments, values)
    assert reason in str(caught.value)


def test_the_command_line_is_read_as_absl_reads_it(values, tmp_path, monkeypatch):
    """The rest of the arguments stays as it is, and a --flagfile that absl takes as none is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.cfg").write_text("--batch_size=7\n")
    pieces = ["--flagfile=f.cfg", "--mode", "prior", "mode", "--", "stray", "--jit_compile", "--dataset=a b # c"]
    for length in (1, 2, 3, 4):
        for arguments in itertools.permutations(pieces, length):
            assert flagfiles.expand(arguments, values) == values.read_flags_from_files(list(arguments), force_gnu=False)


def test_unknown_flags_that_undefok_allows(read):
    assert read("--mode=prior\n--other=3 # of a newer version\n--noother", "--undefok=other") == {"mode": "prior"}
