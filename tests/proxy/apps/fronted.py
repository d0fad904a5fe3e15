"""abrupt.py on a port, behind the launcher's front; argv: the socket."""

import os
import sys

from receiver.inside.front import start_front

port = start_front(sys.argv[1], sys.argv[1].removesuffix(".sock") + ".port")
os.execv(sys.executable, [sys.executable, "abrupt.py", str(port)])
