"""Tests of Berth's hands: every one plays host in a network namespace of its own."""
