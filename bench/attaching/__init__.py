"""The parts of the attach bench: see `bench/attach.py`."""
