"""Which rows of a job a process computes: `--shard=i/n`, counted from 0. Plain Python."""

from __future__ import annotations

import dataclasses
import re

from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """Shard `index` of `total`.

    Args:
        index: 0 .. total - 1.
        total: the number of shards of the job, and of its parts.
    """

    index: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The Shard of a text `i/n`.

        >>> Shard.parse("3/4")
        Shard(index=3, total=4)

        Raises:
            UserError: another text, or an index that is not from 0 to n - 1.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not match:
            unset = " (is a variable in it unset?)" if text.startswith("/") or text.endswith("/") else ""
            raise UserError(f"shard: expected i/n with i from 0 to n - 1, such as 0/16, received {text!r}{unset}")
        index, total = map(int, match.groups())
        if index >= total:
            last = f": shards are counted from 0, and the last of {total} is {total - 1}/{total}" if total else ""
            raise UserError(f"shard: expected i/n with i from 0 to n - 1, received {text!r}{last}")
        return cls(index, total)

    def rows(self, count: int) -> range:
        """The numbers of its rows among the `count` rows of the job.

        >>> [Shard(index, 3).rows(10) for index in range(3)]
        [range(0, 3), range(3, 6), range(6, 10)]
        """
        return range(self.index * count // self.total, (self.index + 1) * count // self.total)

    @property
    def name(self) -> str:
        """The name of its part, without an ending."""
        return f"part-{self.index:05}-of-{self.total:05}"

    def __str__(self) -> str:
        return f"{self.index}/{self.total}"
