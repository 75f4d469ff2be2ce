"""Text files that are written whole or not at all, and outlive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

from berth.errors import Denied, Invalid, Refused


def read(path: str | Path) -> tuple[str, int] | None:
    """(text, mode) of a file; None where there is none.

    Raises `Invalid` for one that is not UTF-8, `Denied`, `Refused`.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(), os.fstat(file.fileno()).st_mode & 0o7777
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8 text (byte {error.start}): mend it first") from None
    except OSError as error:
        raise _explain(f"cannot read {path}", error) from None


def write(path: str | Path, text: str, mode: int) -> None:
    """Put a text in the place of what was there, at one instant. Raises `Denied`, `Refused`."""
    target = Path(os.path.realpath(path))  # a link to the file stays one
    if target.exists() and not target.is_file():
        raise Refused(f"cannot write {path}: {target} is no regular file; move the link away first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as out:
                out.write(text)
                out.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            os.replace(draft, target)
        except BaseException:
            os.unlink(draft)
            raise
        _settle(target.parent)
    except OSError as error:
        raise _explain(f"cannot write {path}", error) from None


def remove(path: str | Path) -> None:
    """Remove a file, if it is there. Raises `Denied`, `Refused`."""
    try:
        os.unlink(path)
        _settle(Path(path).parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _explain(f"cannot remove {path}", error) from None


def _settle(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(what: str, error: OSError) -> Denied | Refused:
    if isinstance(error, PermissionError):
        return Denied(f"{what}: not allowed: run as root")
    return Refused(f"{what}: {error.strerror}")
