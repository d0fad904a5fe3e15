"""The runtimes shipit can build. Another one is one more file here and one more row."""

from __future__ import annotations

from receiver.runtimes.base import Runtime
from receiver.runtimes.disk import Disk
from receiver.runtimes.go import Go
from receiver.runtimes.image import Dockerfile, Image
from receiver.runtimes.node.runtime import Node
from receiver.runtimes.package.runtime import Package
from receiver.runtimes.php import PHP
from receiver.runtimes.plain import Plain
from receiver.runtimes.python.runtime import Python
from receiver.runtimes.ruby import Ruby
from receiver.runtimes.site.runtime import Site
from receiver.runtimes.static import Static

# For starting a project, the first runtime with a suggestion is used. Builds run in the reverse order: a row can use
# what later rows have made (Django collects a bundle that npm made). The last row takes any project.
RUNTIMES: tuple[Runtime, ...] = (
    Image(), Dockerfile(), Disk(), Package(), Site(), Python(), Ruby(), PHP(), Go(), Node(), Static(), Plain(),
)  # fmt: skip
