"""Measured, not tested: shipit and a bash hook side by side, as ratios. README.md says how and what."""
