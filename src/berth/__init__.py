"""Berth: an address and a cable on a real network for every container."""

__version__ = "0.1.0"
