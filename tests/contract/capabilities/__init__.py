"""What a capability may ask for, on a server. `toy.py` is one that only these tests have."""
