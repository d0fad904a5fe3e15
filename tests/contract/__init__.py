"""The promises of each interface, run against everything that implements it."""
