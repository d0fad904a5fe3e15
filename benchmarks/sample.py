"""The app that is shipped: Flask behind gunicorn. Its one page says which code, config and dependencies answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .machine import Client, Outcome

GUNICORN = "gunicorn --workers 2 app:app"
# As often awake; but a worker that did not run for a while, because its machine was frozen, is not killed for it.
PATIENT = "gunicorn --workers 2 --timeout 3600 app:app"
REQUIREMENTS = ("flask==3.0.3", "gunicorn==22.0.0")
ADDED = (
    "humanize==4.9.0", "tabulate==0.9.0", "xmltodict==0.13.0", "shortuuid==1.0.13", "inflection==0.5.1",
    "text-unidecode==1.3", "toolz==0.12.1", "cachetools==5.3.3", "pluggy==1.5.0", "iniconfig==2.0.0",
    "pathspec==0.12.1", "more-itertools==10.2.0", "sortedcontainers==2.4.0", "decorator==5.1.1", "zipp==3.19.2",
    "distlib==0.3.8", "filelock==3.15.4", "platformdirs==4.2.2", "idna==3.7", "colorama==0.4.6",
)  # fmt: skip
"""One small wheel after the other, none of which needs another: a round adds the next."""
LARGE = ("numpy==2.2.6", "scipy==1.15.3", "pillow==11.3.0", "lxml==5.4.0")
"""Each has wheels for the Pythons of Debian 12 and 13."""

PAGE = """\
import importlib.metadata
import os

from flask import Flask

app = Flask(__name__)
CODE = "{code}"
ADDED = importlib.metadata.version("{added}")


@app.get("/")
def page() -> str:
    return f"code={{CODE}} config={{os.environ.get('GREETING', '')}} added={added}-{{ADDED}} "
"""


@dataclass
class Sample:
    """One working copy of the app. `code` counts its commits; the page shows it as `code=N `."""

    client: Client
    where: Path
    requirements: tuple[str, ...] = REQUIREMENTS
    web: str = GUNICORN
    code: int = 0
    warm: int = 0

    def git(self, *words: str) -> Outcome:
        return self.client.call("git", *words, cwd=self.where).must()

    def create(self) -> None:
        self.where.mkdir(parents=True)
        self.git("init", "-q", "--initial-branch=main")
        self.commit()

    def commit(self) -> str:
        """The next version of the code; returns what its page will hold."""
        self.code += 1
        added = self.requirements[-1].split("==")[0]
        (self.where / "app.py").write_text(PAGE.format(code=self.code, added=added))
        (self.where / "requirements.txt").write_text("\n".join(self.requirements) + "\n")
        (self.where / "shipit.yml").write_text(f"warm: {self.warm}\n")
        (self.where / "Procfile").write_text(f"web: {self.web}\n")
        self.git("add", ".")
        self.git("commit", "-q", "-m", f"Version {self.code}")
        return self.marker

    def add(self, requirement: str) -> str:
        """The next version needs one package more; returns what its page will hold."""
        self.requirements += (requirement,)
        name, version = requirement.split("==")
        self.commit()
        return f"added={name}-{version} "

    @property
    def marker(self) -> str:
        return f"code={self.code} "
