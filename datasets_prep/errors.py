"""Errors that a user can fix, and notes: the command line shows their message alone."""

import re

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class UserError(ValueError):
    """A request that cannot be carried out; the message names the problem and the remedy.

    `has_lines` says whether it may have several lines, one a problem.
    """

    has_lines = False


class NotFound(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""


class BadSample(ValueError):
    """A sample that cannot be used; the message is its reason in the quarantine table."""


class WrongLayout(UserError):
    """A folder that does not have the layout of its source; the message says what was expected and found."""


class Note(UserWarning):
    """What was done with data that are used; the manifest counts its message, which names no file."""


def printable(text: str) -> str:
    """`text` with escapes in place of what could command a terminal or hide: all control characters but line
    feeds, marks that change the direction of writing, and bytes of file names that are not UTF-8."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """`printable` text in one line: a line feed becomes an escape too."""
    return printable(text).replace("\n", "\\n")
