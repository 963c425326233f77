"""What can go wrong in stage 2.

    TrainError        a user's error: one clear line (or several, one an error)
      ConfigError     everything that is wrong with an experiment, found at once
      DivergedError   a loss that is not finite

`python -m train` prints each line after "error: " and exits with 1.
"""

from __future__ import annotations

from vqa_cache.errors import UserError


class TrainError(UserError, ValueError):
    """Base of every error of stage 2 that a user can mend; each line of the text is one error."""


class ConfigError(TrainError):
    """An experiment that cannot be run. `lines` holds one line per error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class DivergedError(TrainError):
    """A training whose loss is no longer finite."""
