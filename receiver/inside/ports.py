"""Which TCP ports a process on this server is given.

A file of its own for the launcher, which needs the range and not the front.
"""

# Below Linux's default range for outgoing connections (from 32768), so that none of those takes the port meanwhile.
PORTS = range(20_000, 32_000)
