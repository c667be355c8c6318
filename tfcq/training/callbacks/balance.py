"""Warnings of players that are out of balance."""

from __future__ import annotations

from tfcq.machine.terminal import say
from tfcq.training.callbacks.step import StepCallback


class Balance(StepCallback):
    """Judges the balance of the model's players by means over `every` steps; prints warnings that begin, change or end.

    They do so once two means in a row agree, so that a balance that is lost for a moment, or hovers at a limit, is not reported
    again and again.
    """

    def __init__(self, every: int):
        super().__init__()
        self._every = every
        self._warned: str | None = None  # the kind of the last warning
        self._before: str | None = None  # the kind that the last mean showed
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def on_step(self, step: int, logs: dict) -> None:
        """Sums the logged terms, and judges their means every `every` steps."""
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if step % self._every:
            return
        warning = self.model.balance_warning({name: total / self._counts[name] for name, total in self._sums.items()})
        self._sums, self._counts = {}, {}
        kind = warning.kind if warning else None
        lasts, self._before = kind == self._before, kind
        if not lasts or kind == self._warned:
            return
        say(f"step {step}: " + (f"warning: {warning.text}" if warning else "the players are in balance again"))
        self._warned = kind
