"""What takes long is done the less often, within bounds."""

from __future__ import annotations

import time

import pytest

from berth.daemon.pace import Pace


@pytest.mark.parametrize(("took", "pause"), [(0.0, 2.0), (0.003, 2.0), (0.006, 4.0), (0.6, 12.0)])
def test_pauses(took: float, pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((5.0, 5.0 + took))
    monkeypatch.setattr(time, "thread_time", lambda: next(times))
    pace = Pace(2)
    assert pace.pause == 2
    with pace:
        pass
    assert pace.pause == pytest.approx(pause)
