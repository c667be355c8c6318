"""Names of folders that a user may give, all of which work: for the tests of everything that takes a path."""

NAMES = (
    "[a] test",
    "[!a]",
    "*",
    "q?",
    "{a,b}",
    "two  blanks ",
    "'single' and \"double\"",
    "#1",
    "%41 100%s",
    "\u00e9\u4e2d",
    "e\u0301",  # not normalised: the letter and its accent
    "no\u00a0break",
    "-dash",
    "--flag=1",
    "back\\slash",
    "comma,",
    "co:lon",
    "$HOME $a$",
    "~",
    "~nosuchuser",
    "<b>&amp;`|`",
    "_under_",
    "x" * 200,
    "\u4e2d" * 80,  # 240 bytes
)

NASTY = "[a]*? \\'\"#%20\u00e9\u4e2d,:$x$_|<b>~-"
"""One that has nearly all of it."""
