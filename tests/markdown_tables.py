"""Tables of Markdown, for tests that look at their cells."""

import re


def unpadded(text):
    """The text with one blank where there are several, as those that fill a table's cells."""
    return re.sub(" {2,}", " ", text)
