"""The progress of a training, in the terminal and in its folder."""

from __future__ import annotations

from tfcq.machine.terminal import ProgressBar
from tfcq.training.callbacks.step import StepCallback
from tfcq.training.progress import Progress, Reporter


class StepProgress(StepCallback):
    """Reports each step, and shows a `ProgressBar` with step, images/s, time left, memory and losses.

    Args:
        reporter: writes the progress to the folder.
    """

    def __init__(self, reporter: Reporter):
        super().__init__()
        self._reporter = reporter
        self._bar: ProgressBar | None = None

    def on_step(self, step: int, logs: dict) -> None:
        """Reports the step, and updates the bar when it is due."""
        self._reporter.took(step, logs)
        total = self._reporter.train_steps
        if self._bar is None:  # the first step traces and compiles, so its time is not the speed
            self._bar = ProgressBar(total)
        elif self._bar.due() or step == total:
            self._bar.show(step, _parts(self._reporter.progress()), last=step == total)


def _parts(progress: Progress) -> list[str]:
    """The texts of a progress line, the most important first; without a speed before the process's second step."""
    numbers = []
    if progress.seconds_per_step is not None:
        minutes_left = (progress.train_steps - progress.step) * progress.seconds_per_step / 60
        numbers = [f"{progress.images_per_second:.1f} images/s", f"{minutes_left:.1f} min left"]
    losses = [f"{name} {float('nan') if value is None else value:.4g}" for name, value in progress.losses.items()]
    return [f"step {progress.step}/{progress.train_steps}", *numbers, *_memory(progress), *losses]


def _memory(progress):
    known = {"": progress.memory_bytes, "GPU ": progress.gpu_memory_bytes}
    return [f"{name}{count / 1e9:.1f} GB" for name, count in known.items() if count is not None]
