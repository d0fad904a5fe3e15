"""The ssh side of shipit: parses what a client typed into a request, allows or refuses it, and serves it."""
