"""Errors that a user can mend: their message alone is what the command line shows."""

from __future__ import annotations


class UserError(ValueError):
    """Something that was asked for cannot be done; the message names it and says what would be right."""


class NotFound(UserError, FileNotFoundError):
    """A file or folder that was named is not there."""


class BadSample(ValueError):
    """A sample that cannot be used; the message is the reason that the quarantine table shows."""


class WrongLayout(UserError):
    """A folder that is not what the source expects; the message says what was expected and what is there."""
