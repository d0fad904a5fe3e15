"""Tests here run without systemd: all of them are marked `embedded` by tests/conftest.py, which has the fixtures too."""
