"""The guard: it puts a host back when the change of an uplink does not succeed. `kernel/guard.py` starts it."""
