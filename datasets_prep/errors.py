"""Errors that a user can fix, and notes: the command line shows their message alone."""


class UserError(ValueError):
    """A request that cannot be carried out; the message names the problem and the remedy."""


class NotFound(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""


class BadSample(ValueError):
    """A sample that cannot be used; the message is its reason in the quarantine table."""


class WrongLayout(UserError):
    """A folder that does not have the layout of its source; the message says what was expected and found."""


class Note(UserWarning):
    """What was done with data that are used; the manifest counts its message, which names no file."""
