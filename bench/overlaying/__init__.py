"""The parts of the overlay bench: see `bench/overlay.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # the real engines are the tests': interop.engines

from interop.engines import KINDS as KINDS
from interop.engines import EngineError as EngineError
