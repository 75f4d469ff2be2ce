"""The parts of the proxy's bench: see `bench/proxy.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # the real engines are the tests': interop.engines
