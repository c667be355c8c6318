"""Images that cannot be used: one line for one of them or for many."""

from __future__ import annotations

from collections.abc import Sequence

from tfcq.errors import UserError

MOST_NAMED = 20
"""How many images a message names; the rest are counted."""


class UnfitImages(UserError):
    """Images that cannot be used: the first one's message, then the names of the rest and what is wrong with each.

    Args:
        unfit: at least one UnfitImage.
        total: how many there are in all, if `unfit` is only the first of them.
    """

    def __init__(self, unfit: Sequence[UnfitImage], total: int | None = None) -> None:
        self.unfit, self.total = unfit[:MOST_NAMED], total or len(unfit)
        more = self.total - 1
        others = f"; {more} more cannot be used: {listed(unfit[1:], more, MOST_NAMED - 1)}" if more else ""
        super().__init__(f"{unfit[0]}{others}")


class UnfitImage(UserError):
    """An image that cannot be used.

    Args:
        message: the whole line, as for any UserError.
        name: the image's name.
        note: what is wrong with it, in a few words, for a list of many.
        kind: the heading under which images that are left out are counted ("broken", "16 bits a channel", ...); empty if
            `skip_broken_images` must not leave it out, because the fault lies in the machine (a file without permission,
            too little memory) or in the settings (a crop larger than the image).
    """

    def __init__(self, message: str, name: str, note: str, kind: str = "") -> None:
        super().__init__(message)
        self.name, self.note, self.kind = name, note, kind

    def __reduce__(self):
        return UnfitImage, (str(self), self.name, self.note, self.kind)  # for `pickle`, which knows the message alone

    def alone(self) -> UnfitImage:
        """An equal error without its traceback, whose frames would keep the file's content in memory."""
        return UnfitImage(str(self), self.name, self.note, self.kind)


def listed(unfit: Sequence[UnfitImage], total: int, most: int = MOST_NAMED) -> str:
    """The first of `total` UnfitImage by name, each with what is wrong: 'a.png (truncated), b.png (9x5) and 7 others'."""
    named = ", ".join(f"{image.name} ({image.note})" for image in unfit[:most])
    return named + (f" and {total - most} others" if total > most else "")
