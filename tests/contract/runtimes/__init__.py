"""Every runtime: what it finds, builds, shares and refuses. `toy.py` is one that only these tests have."""
