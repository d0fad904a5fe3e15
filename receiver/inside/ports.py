"""The range of TCP ports for $PORT.

In a file of its own, because the launcher needs the range, but not the front.
"""

# Below Linux's default range for outgoing connections (from 32768), so that none of those takes the port meanwhile.
PORTS = range(20_000, 32_000)
