"""Tests of Berth beside real engines: each runs on the host of a lab, with directories and mounts of its own."""
