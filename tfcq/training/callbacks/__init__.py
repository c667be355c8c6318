"""Work between steps: guards, progress, scalars, evaluation, checkpoints, as Keras callbacks that count steps.

`fit` runs all remaining steps as one epoch, so each callback checks the number of the step that just ended.
Their order matters: the guard comes before everything that writes, the evaluation before the checkpoint of the same step.
"""

from tfcq.training.callbacks.balance import Balance
from tfcq.training.callbacks.evaluation import Evaluation, Meeting
from tfcq.training.callbacks.guard import FiniteGuard
from tfcq.training.callbacks.scalars import Scalars
from tfcq.training.callbacks.step import FirstStep, Saver, StepCallback
from tfcq.training.callbacks.step_progress import StepProgress

__all__ = ["Balance", "Evaluation", "FiniteGuard", "FirstStep", "Meeting", "Saver", "Scalars", "StepCallback", "StepProgress"]
