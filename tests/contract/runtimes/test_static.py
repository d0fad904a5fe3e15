"""Pages that nginx serves by itself: what it shows, what it does not, and that a switch of kind loses no request."""

from __future__ import annotations

import pytest
from host.apps import asked, files, say, unwell
from lab.client import Client, Repo
from lab.host import Host

PAGES = {
    "dist/index.html": "one",
    "dist/docs/index.html": "docs",
    "dist/about.html": "about",
    "dist/assets/app-BxY3fgh1.js": "1",
    "dist/plain.js": "2",
    "dist/.env": "SECRET=1",
    "dist/.well-known/security.txt": "mail",
    "secret.txt": "not a page",
    "shipit.yml": "static: dist\n",
}


@pytest.fixture(scope="module")
def pages(laptop: Client) -> Repo:
    """An app of pages that the tests of this module share."""
    repo = laptop.repo("pages", PAGES)
    (repo.path / "dist/passwd").symlink_to("/etc/passwd")
    (repo.path / "dist/out.txt").symlink_to("../secret.txt")
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "links")
    result = repo.push()
    assert result.code == 0, str(result)
    return repo


def test_pages_are_served_without_a_process(pages: Repo, laptop: Client) -> None:
    assert laptop.get("pages").body == "one"
    assert laptop.get("pages", "/docs/").body == "docs" and laptop.get("pages", "/about").body == "about"
    assert laptop.get("pages", "/docs").headers["Location"].endswith("/docs/")
    assert laptop.get("pages", "/.well-known/security.txt").body == "mail"
    assert asked(laptop, "releases:info", "pages", "v1")["runtime"] == "static dist"
    assert say(laptop, "ps", "pages").code == 0


def test_an_address_that_the_pages_know_themselves_gets_the_first_page_and_a_missing_file_404(
    pages: Repo, laptop: Client
) -> None:
    assert (laptop.get("pages", "/user/7").status, laptop.get("pages", "/user/7").body) == (200, "one")
    assert laptop.get("pages", "/assets/gone-12345678.js").status == 404
    assert laptop.get("pages", method="POST").status == 405


def test_only_what_has_a_digest_in_its_name_is_kept_by_browsers(pages: Repo, laptop: Client) -> None:
    assert "immutable" in laptop.get("pages", "/assets/app-BxY3fgh1.js").headers["Cache-Control"]
    for path in ("/", "/plain.js", "/docs/"):
        assert laptop.get("pages", path).headers["Cache-Control"] == "no-cache"


def test_hidden_files_and_links_out_of_the_directory_are_not_shown(pages: Repo, laptop: Client) -> None:
    assert laptop.get("pages", "/.env").status == 404
    for path in ("/passwd", "/out.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/.env", "/assets/"):
        answer = laptop.get("pages", path)
        assert "root:" not in answer.body and "not a page" not in answer.body and "SECRET" not in answer.body, path


def test_nginx_may_read_the_directory_and_nothing_else_of_the_release(pages: Repo, shared_host: Host) -> None:
    slug = "/var/lib/shipit/apps/pages/slugs/v1"

    def reads(user: str, path: str) -> bool:
        return shared_host.run("runuser", "-u", user, "--", "cat", f"{slug}/{path}", check=False).code == 0

    assert reads("www-data", "dist/index.html")
    assert not any(reads("www-data", path) for path in ("secret.txt", "shipit.yml", "dist/.env"))
    assert not reads("nobody", "dist/index.html")


def test_rollback_and_a_change_of_kind_lose_no_request(pages: Repo, laptop: Client) -> None:
    repo = laptop.repo("kinds", files("process"))
    assert repo.push().code == 0
    repo.commit({**files("process"), "dist/index.html": "page", "shipit.yml": "static: dist\n", "Procfile": None})
    with laptop.load("kinds") as load:
        assert repo.push().code == 0
        load.wait_for_body("page")
        repo.commit({"dist/index.html": "page two"})
        assert repo.push().code == 0
        load.wait_for_body("page two")
        assert say(laptop, "rollback", "kinds", "v1").code == 0
        load.wait_for_body("process")
        assert say(laptop, "rollback", "kinds", "v2").code == 0
        load.wait_for_body("page")
    report = load.stop()
    assert report.failed == 0, str(report)


def test_a_build_without_the_first_page_fails_and_says_what_is_missing(laptop: Client) -> None:
    result = laptop.repo(
        "pageless", {"README.md": "x", "shipit.yml": "static: dist\nbuild: {command: mkdir dist}\n"}
    ).push()
    assert result.code != 0 and "There is no dist/index.html after the build" in result.remote, str(result)


@pytest.mark.slow
def test_node_builds_the_pages_that_nginx_serves_on_trixie(trixie_host: Host, client: Client) -> None:
    # The directory is hidden, and nothing names it but the generator's own way.
    pages = "docs/.vitepress/dist"
    script = f"const fs = require('fs'); fs.mkdirSync('{pages}', {{recursive: true}}); fs.copyFileSync('mark', '{pages}/index.html')"
    package = '{"name": "a", "version": "1.0.0", "scripts": {"build": "node build.js vitepress build docs"}}'
    files = {"package.json": package, "build.js": script, "shipit.yml": "node: 22\n"}
    repo = client.repo("bundled", {**files, "mark": "one"})
    result = repo.push()
    assert result.code == 0, str(result)
    assert client.get("bundled").body == "one"
    repo.commit({"mark": "two"})
    assert repo.push().code == 0
    assert client.get("bundled").body == "two"
    assert unwell(trixie_host) == []
