"""What can go wrong, and the code each caller gets for it.

A message says what is wrong, with which value, and what to do, on one line.
"""

from __future__ import annotations

from dataclasses import dataclass


class BerthError(Exception):
    """Anything Berth refuses or fails to do."""


class Invalid(BerthError):
    """The request makes no sense as written."""


class NotFound(BerthError):
    """The request names something that does not exist."""


class Taken(BerthError):
    """The request wants a name, address or object that is somebody else's."""


class Exhausted(BerthError):
    """There is no room left: no free address, no free bridge port."""


class Denied(BerthError):
    """The process lacks a privilege."""


class Unsupported(BerthError):
    """This kernel or this host lacks something that Berth needs."""


class Refused(BerthError):
    """The kernel or a file system refused a change that looked right."""


@dataclass(frozen=True, slots=True)
class Codes:
    """How one kind of error is told to a shell and over HTTP."""

    exit: int
    http: int


CODES: dict[type[BerthError], Codes] = {
    Invalid: Codes(2, 400),
    NotFound: Codes(2, 404),
    Taken: Codes(2, 409),
    Exhausted: Codes(2, 409),
    Denied: Codes(2, 403),
    Unsupported: Codes(2, 501),
    Refused: Codes(1, 500),
}


def codes(error: BerthError) -> Codes:
    """The codes of an error's kind; 1 and 500 for a kind that has no row."""
    return CODES.get(type(error), Codes(1, 500))
