"""Images that cannot be used: one line for one of them or for many."""

from tfcq.errors import UserError

MOST_NAMED = 20
"""How many images a message names; the rest are counted."""


class UnfitImages(UserError):
    """Images that cannot be used: the first one's message, then the names of the others and what is wrong with them.

    Args:
        unfit: UnfitImage, at least one.
        total: how many there are in all, where `unfit` are the first of them alone.
    """

    def __init__(self, unfit, total=None):
        self.unfit, self.total = unfit[:MOST_NAMED], total or len(unfit)
        more = self.total - 1
        others = f"; {more} more cannot be used: {listed(unfit[1:], more, MOST_NAMED - 1)}" if more else ""
        super().__init__(f"{unfit[0]}{others}")


class UnfitImage(UserError):
    """An image that cannot be used.

    Args:
        message: the whole line, as of any UserError.
        name: of the image.
        note: what is wrong with it, in a few words, for a list of many.
        kind: what images that are left out are counted under ("broken", "16 bits a channel", ...); empty where
            `skip_broken_images` must not leave it out: the fault is one of the machine (a file that may not be read, too
            little memory), or of the settings (a crop larger than the image).
    """

    def __init__(self, message, name, note, kind=""):
        super().__init__(message)
        self.name, self.note, self.kind = name, note, kind

    def alone(self):
        """An equal error without its traceback, whose frames would hold what was read of the file."""
        return UnfitImage(str(self), self.name, self.note, self.kind)


def listed(unfit, total, most=MOST_NAMED):
    """The first of `total` UnfitImage by name, each with what is wrong: 'a.png (truncated), b.png (9x5) and 7 others'."""
    named = ", ".join(f"{image.name} ({image.note})" for image in unfit[:most])
    return named + (f" and {total - most} others" if total > most else "")
