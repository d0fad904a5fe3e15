"""A runtime of one file: a project with a `toy.txt`, whose words are what its program says."""

from __future__ import annotations

import hashlib

from receiver.errors import Rejected
from receiver.manifest import Pushed
from receiver.model import ProcessEnv
from receiver.runtimes.base import BuildPlan, Evidence, Made, Project, Runtime, Step, Suggestion

_MAKE = 'mkdir -p .toy/bin; printf "#!/bin/sh\\necho %s\\n" "$1" > .toy/bin/toy; chmod +x .toy/bin/toy'


class Toy(Runtime):
    """Makes `.toy/bin/toy`, which says what toy.txt says."""

    name = "toy"
    makes = (".toy",)
    reads = ("toy.txt",)

    def finds(self, pushed: Pushed) -> Evidence | None:
        return Evidence("toy.txt") if "toy.txt" in pushed.tree.files() else None

    def version(self, pushed: Pushed) -> str:
        words = (pushed.tree.read("toy.txt") or b"").decode()
        if words.startswith("toy 2"):
            raise Rejected("toy.txt: there is no toy 2.", hint="Write toy 1.")
        return "1"

    def plan(self, project: Project) -> BuildPlan:
        words = (project.tree.read("toy.txt") or b"").decode().strip()
        key = hashlib.sha256(words.encode()).hexdigest()
        step = Step("Making the toy", ("/bin/sh", "-c", _MAKE, "sh", words))
        return BuildPlan("toy 1", made=(Made(".toy", key, (step,)),))

    def process(self, project: Project) -> ProcessEnv:
        return ProcessEnv(path=(".toy/bin",), variables=(("TOY", "$SLUG/.toy"),))

    def suggests(self, pushed: Pushed) -> Suggestion | None:
        command = 'printf \'import http.server,os,subprocess\\nclass H(http.server.BaseHTTPRequestHandler):\\n def do_GET(self):\\n  self.send_response(200);self.end_headers();self.wfile.write(subprocess.check_output("toy"))\\nhttp.server.HTTPServer(("127.0.0.1",int(os.environ["PORT"])),H).serve_forever()\' | python3 -u -'
        return Suggestion("No Procfile: toy.txt, so the toy answers.", web=command)
