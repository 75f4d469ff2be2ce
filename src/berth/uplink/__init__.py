"""Deciding how a host's NIC joins a bridge, and leaves it: pure, as drivers are."""
