"""The test lab: real Debian machines, booted in seconds. tests/README.md shows how to use it."""
