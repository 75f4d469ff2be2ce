"""Tests on a real Debian that starts, restarts and loses its power: a virtual machine on the lab's switch."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.guest")
