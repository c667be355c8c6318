"""Warnings of players that have lost their balance."""

from tfcq.machine.terminal import say
from tfcq.training.callbacks.step import StepCallback


class Balance(StepCallback):
    """Prints the model's warnings about its players' balance, judged every `every` steps, when they begin, change or end."""

    def __init__(self, every):
        super().__init__()
        self._every, self._warned = every, None
        self._sums, self._counts = {}, {}

    def on_step(self, step, logs):
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if step % self._every:
            return
        warning = self.model.balance_warning({name: total / self._counts[name] for name, total in self._sums.items()})
        self._sums, self._counts = {}, {}
        kind = warning.kind if warning else None
        if warning and kind != self._warned:
            say(f"step {step}: warning: {warning.text}")
        elif self._warned and not warning:
            say(f"step {step}: the players are in balance again")
        self._warned = kind
