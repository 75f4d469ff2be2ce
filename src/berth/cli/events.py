"""`berth events`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import click
import msgspec

from berth import wire
from berth.events import Event

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds
_KEYS = {"type": "type", "event": "action", "name": "name", "id": "id"}  # as Docker has them, and the event's fields


@click.command()
@click.option("--since", default="", metavar="TIME", help="Begin earlier: 10m, 2h, or a time such as 2026-01-31T12:00.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only these; KEY is type, event, name or id. Of one key any value will do, of several keys each must hold.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an event a line.")
def events(since: str, filters: tuple[str, ...], as_json: bool) -> None:
    """Follow what the daemon does, until interrupted. It remembers the last thousand events."""
    began, wanted = _time(since), _wanted(filters)
    client = wire.daemon()
    try:
        for event in client.events(began):
            if not all(_value(event, key) in values for key, values in wanted.items()):
                continue
            print(json.dumps(msgspec.to_builtins(event), ensure_ascii=False) if as_json else _line(event), flush=True)
    finally:
        client.close()


def _wanted(filters: tuple[str, ...]) -> dict[str, set[str]]:
    """The values that each key may have."""
    wanted: dict[str, set[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in _KEYS:
            raise click.BadParameter(
                f"{text!r}: give {', '.join(f'{each}=…' for each in _KEYS)}", param_hint="--filter"
            )
        wanted.setdefault(key, set()).add(value)
    return wanted


def _value(event: Event, key: str) -> str:
    value: str = getattr(event, _KEYS[key])
    return value


def _line(event: Event) -> str:
    said = ", ".join(f"{key}={value}" for key, value in event.attributes.items())
    return " ".join(filter(None, [event.time, event.type, event.action, event.name or event.id[:12], f"({said})"]))


def _time(text: str) -> str:
    """A time as events have it."""
    if not text:
        return ""
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    try:
        if ago is not None:
            then = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        else:
            then = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time: give 10m, 2h, or 2026-01-31T12:00", param_hint="--since"
        ) from None
    return then.isoformat().replace("+00:00", "Z")
