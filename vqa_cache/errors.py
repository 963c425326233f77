"""What can go wrong with a cache, and the base of what a user can mend.

    UserError             of any command: it ends with one line an error and exit code 1
    CacheError
      NotACacheError      the path holds no cache
      NewerFormatError    written by a newer version of this project
      DamagedError        bytes on disk differ from what a record says
      TableNotFoundError  no table, or several, match what was asked for
      KeyNotFoundError    a table has no row for a key
      RefusedError        settings differ from those that a table was begun with

Each message is one line: what failed, where, found against expected, and what to do.
"""

from __future__ import annotations

import errno


class UserError(Exception):
    """Base of every error that a user can mend; each line of its text is one error."""


class CacheError(UserError):
    """Base of every error about a cache; its text is one clear line."""


class NotACacheError(CacheError):
    """The path holds no cache."""


class NewerFormatError(CacheError):
    """The cache, or a record in it, has a format version that this program does not know."""


class DamagedError(CacheError):
    """Bytes on disk differ from what their record says."""


class TableNotFoundError(CacheError):
    """No table, or more than one, matches what was asked for."""


class KeyNotFoundError(CacheError, KeyError):
    """A table has no row for a key."""

    __str__ = CacheError.__str__  # KeyError would print the message in quotes


class RefusedError(CacheError):
    """A setting differs from the one that the table was begun with."""


_SHORTAGES = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT,
    errno.EAGAIN,
}  # fmt: skip

_NO_THREAD = "can't start new thread"  # Python's, where memory or the limit of processes ended


def is_shortage(error: BaseException) -> bool:
    """Whether memory, threads, file handles or disk ran out: that says nothing about the file that
    was being read, which is then neither damaged nor unreadable."""
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return True
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _SHORTAGES
