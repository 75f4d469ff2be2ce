"""What the doctor says: one thing that is wrong, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"  # something does not work
    WARNING = "warning"  # something will not, or only sometimes
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    check: str  # stable, in kebab-case
    severity: Severity
    message: str
    why: str  # it matters
    fix: str  # the exact command, or what a person has to do
    ours: bool = False  # the command mends what is Berth's own, and may be run at any time
    command: bool = True  # `fix` can be run as it is
