"""Lines of the log for programs: `key=value` with blanks between, one line whatever is in the values."""

from __future__ import annotations


def line(what: str, name: str, seconds: float, *, error: str = "", about: tuple[tuple[str, str], ...] = ()) -> str:
    """What was done (`op` a verb, `call` a request), how long it took, what it was about, and how it ended.

    >>> line("op", "attach", 0.0021, about=(("endpoint", "web 1"),))
    'op=attach ms=2.10 endpoint="web 1" ok=true'
    """
    words = [f"{what}={_word(name)}", f"ms={seconds * 1000:.2f}", *(f"{key}={_word(value)}" for key, value in about)]
    words.append(f"error={_word(error)}" if error else "ok=true")
    return " ".join(words)


def _word(text: str) -> str:
    """A value: in quotes where it has blanks."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return '"' + shown.replace('"', "'") + '"' if " " in shown or '"' in shown or "=" in shown else shown
