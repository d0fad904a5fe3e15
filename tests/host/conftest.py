"""Tests here boot servers: all of them are marked `host` by tests/conftest.py, which has the fixtures too."""
