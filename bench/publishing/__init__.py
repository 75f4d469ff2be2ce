"""The parts of the ports bench: see `bench/ports.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # the real engines are the tests': interop.harbour
