"""Errors that a script shows as one line."""


class InputError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what is allowed."""


def first_line(error: BaseException) -> str:
    """Return what a library's error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class CheckFailed(Exception):
    """An identity does not hold on this model: no figure of this run could be trusted."""


class UnknownBlock(TypeError):
    """A decoder block passes on something else than its states: editing it would do nothing, or the wrong thing."""
