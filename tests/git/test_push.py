"""A push: its verdict, its branch, and what a retry does (threat rows 10-19)."""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
import time
import zlib
from dataclasses import replace

import pytest
from gate_server import Job, Laptop, Server, die, make_fail, make_live

from receiver.model import Change, Origin, Status


@pytest.fixture(autouse=True)
def app(server: Server) -> None:
    server.make_app()


def assert_consistent(server: Server) -> None:
    """Branch == ledger == what is live."""
    current = server.ledger().current()
    assert server.ref("refs/heads/main") == ((current.commit or "") if current else "")


def test_a_push_goes_live_and_says_so(server: Server, laptop: Laptop) -> None:
    done = laptop.push()
    assert done.returncode == 0, done.stderr
    assert "remote: -----> Building v1" in done.stderr
    assert "Ctrl-C detaches" in done.stderr
    release = server.ledger().current()
    assert release is not None and release.commit == laptop.head() == server.ref("refs/heads/main")
    assert release.by == "alice"
    assert release.origin == Origin("git", laptop.head(), "First", "Ann <ann@example.org>", "main")
    assert release.slug == release.number == 1 and not release.fresh
    assert server.ref("refs/shipit/v1") == laptop.head()
    assert server.ledger().state().branch == "main"
    assert server.worker.told == ["deploy blog 1"]


def test_a_failed_deploy_fails_the_push_and_the_same_push_again_deploys(server: Server, laptop: Laptop) -> None:
    server.worker.behaviour = make_fail
    first = laptop.push()
    assert first.returncode == 1 and "healthcheck failed" in first.stderr
    assert server.ref("refs/heads/main") == ""
    server.worker.behaviour = make_live
    again = laptop.push()
    assert again.returncode == 0 and "Everything up-to-date" not in again.stderr
    assert server.ledger().current_number() == 2
    assert_consistent(server)


def test_a_failed_second_deploy_leaves_the_branch_at_the_live_commit(server: Server, laptop: Laptop) -> None:
    laptop.push()
    live = laptop.head()
    bad = laptop.commit({"app.py": "bad"})
    server.worker.behaviour = make_fail
    assert laptop.push().returncode == 1
    assert server.ref("refs/heads/main") == live
    assert server.ref("refs/shipit/v2") == bad
    server.worker.behaviour = make_live
    assert laptop.push().returncode == 0
    assert server.ref("refs/heads/main") == bad


def test_a_worker_that_dies_fails_the_push(server: Server, laptop: Laptop) -> None:
    server.worker.behaviour = die
    done = laptop.push()
    assert done.returncode == 1 and "died half way" in done.stderr
    assert server.ref("refs/heads/main") == ""
    server.worker.behaviour = make_live
    assert laptop.push().returncode == 0


def test_a_cancelled_release_fails_the_push(server: Server, laptop: Laptop) -> None:
    def cancelled(job: Job) -> None:
        job.ledger.finish(job.release, Status.CANCELLED, "cancelled")
        job.say(" !     v1 was cancelled.")

    server.worker.behaviour = cancelled
    done = laptop.push()
    assert done.returncode == 1 and "was cancelled" in done.stderr


def test_the_last_words_of_a_failure_reach_the_pusher(server: Server, laptop: Laptop) -> None:
    def slow_words(job: Job) -> None:
        job.ledger.finish(job.release, Status.FAILED, "x")
        time.sleep(0.5)
        job.say(" !     (See all of it: shipit releases:output blog v1)")

    server.worker.behaviour = slow_words
    assert "(See all of it" in laptop.push().stderr


def test_without_an_agent_nothing_is_received(server: Server, laptop: Laptop) -> None:
    server.layout.agent_socket.unlink()
    done = laptop.push()
    assert done.returncode != 0 and "The agent does not answer" in done.stderr
    assert "correct access rights" not in done.stderr
    assert server.ref(laptop.head() + "^{commit}") == ""


def test_atomic_pushes_get_the_verdict_too_or_git_is_one_of_the_blind_ones(server: Server, laptop: Laptop) -> None:
    server.worker.behaviour = make_fail
    done = laptop.push("--atomic", "main")
    version = tuple(int(n) for n in laptop.git("version").stdout.split()[2].split(".")[:2])
    # 7dcbeaa0df (2.27) made --atomic ignore ssh's exit status, b81f8c8dd3 (2.49) took it back.
    assert done.returncode == (0 if (2, 27) <= version < (2, 49) else 1)
    assert "healthcheck failed" in done.stderr
    assert server.ref("refs/heads/main") == ""


def test_another_branch_is_refused_with_the_command_to_type(server: Server, laptop: Laptop) -> None:
    laptop.push()
    laptop.git("checkout", "-q", "-b", "feature")
    laptop.commit({"a": "1"})
    done = laptop.push("feature")
    assert done.returncode == 1
    assert "deploys the branch main, not feature" in done.stderr and ":blog feature:main" in done.stderr
    assert server.ref("refs/heads/feature") == "" and len(server.worker.told) == 1
    assert laptop.push("feature:main").returncode == 0


def test_the_first_branch_becomes_the_deploy_branch(server: Server, laptop: Laptop) -> None:
    laptop.git("branch", "-m", "trunk")
    assert laptop.push("trunk").returncode == 0
    assert server.ledger().state().branch == "trunk"
    assert laptop.push("trunk:main").returncode == 1
    clone = subprocess.run(
        ["git", "clone", "-q", f"{server.user}@127.0.0.1:blog", laptop.tree.parent / "clone"], env=laptop.env
    )
    assert clone.returncode == 0 and (laptop.tree.parent / "clone/Procfile").exists()


def test_a_first_push_of_several_branches_is_refused(server: Server, laptop: Laptop) -> None:
    laptop.git("branch", "other")
    done = laptop.push("main", "other")
    assert done.returncode == 1 and "several branches" in done.stderr
    assert server.ledger().state().branch is None


def test_tags_are_stored_and_not_deployed(server: Server, laptop: Laptop) -> None:
    laptop.push()
    laptop.git("tag", "-a", "v1.0", "-m", "x")
    done = laptop.push("v1.0")
    assert done.returncode == 0 and "not deployed" in done.stderr
    assert server.ref("refs/tags/v1.0") and len(server.worker.told) == 1


@pytest.mark.parametrize(
    "ref", ["refs/heads/-x", "refs/heads/@", "refs/notes/x", "refs/replace/" + "a" * 40, "refs/for/main"]
)
def test_odd_refs_are_refused(server: Server, laptop: Laptop, ref: str) -> None:
    laptop.push()
    laptop.commit({"a": "1"})
    done = laptop.push(f"HEAD:{ref}")
    assert done.returncode == 1, done.stderr
    assert server.ref(ref) == ""


@pytest.mark.parametrize("what", ["HEAD:refs/shipit/v9", ":refs/shipit/v1", "+HEAD~0:refs/shipit/v1"])
def test_the_refs_that_keep_releases_are_out_of_reach(server: Server, laptop: Laptop, what: str) -> None:
    laptop.push()
    before = server.ref("refs/shipit/v1")
    laptop.commit({"a": "1"})
    assert laptop.push(what).returncode == 1
    assert server.ref("refs/shipit/v1") == before and server.ref("refs/shipit/v9") == ""
    assert "refs/shipit" not in laptop.git("ls-remote", "prod").stdout


def test_rewritten_history_is_refused_unless_allowed(server: Server, laptop: Laptop) -> None:
    laptop.commit({"a": "1"})
    laptop.push()
    laptop.git("reset", "-q", "--hard", "HEAD~1")
    other = laptop.commit({"b": "1"})
    done = laptop.push("--force", "main")
    assert done.returncode == 1 and "history was rewritten" in done.stderr and "force-push on" in done.stderr
    assert_consistent(server)
    assert laptop.push("--force", "-o", "force", "main").returncode == 0
    assert server.ref("refs/heads/main") == other
    laptop.git("reset", "-q", "--hard", "HEAD~1")
    laptop.commit({"c": "1"})
    server.ledger().change_state(lambda s: replace(s, allow_force_push=True))
    assert laptop.push("--force", "main").returncode == 0
    assert_consistent(server)


def test_deleting_the_deploy_branch_is_refused_unless_allowed(server: Server, laptop: Laptop) -> None:
    laptop.push()
    done = laptop.push(":main")
    assert done.returncode == 1 and "delete on" in done.stderr
    assert_consistent(server)
    server.ledger().change_state(lambda s: replace(s, allow_delete=True))
    assert laptop.push(":main").returncode == 0
    assert server.ref("refs/heads/main") == "" and server.ledger().state().branch is None
    assert server.ledger().current_number() == 1
    assert laptop.push("main:trunk").returncode == 0
    assert server.ledger().state().branch == "trunk" and server.ledger().current_number() == 2


def test_no_deploy_stores_and_the_next_plain_push_deploys(server: Server, laptop: Laptop) -> None:
    done = laptop.push("-o", "no-deploy", "main")
    assert done.returncode == 0 and "not deployed" in done.stderr
    assert server.ledger().numbers() == [] and server.worker.told == []
    assert server.ref("refs/shipit/stored") == laptop.head()
    assert laptop.push().returncode == 0
    assert server.ledger().current_number() == 1


def test_push_options_are_a_closed_set(server: Server, laptop: Laptop) -> None:
    done = laptop.push("-o", "ci.skip", "main")
    assert done.returncode == 1 and "It knows: no-deploy, force, drop-web, message=TEXT" in done.stderr
    done = laptop.push("-o", "message=two words $(id)", "-o", "force", "main")
    assert done.returncode == 0
    release = server.ledger().release(1)
    assert release.message == "two words $(id)" and release.fresh


def test_a_locked_app_takes_no_push(server: Server, laptop: Laptop) -> None:
    server.ledger().change_state(lambda s: replace(s, locked="moving house (bob)"))
    done = laptop.push()
    assert done.returncode != 0 and "moving house (bob)" in done.stderr and "apps:unlock blog" in done.stderr
    assert server.worker.told == []


def test_a_broken_manifest_is_refused_before_anything_is_kept(server: Server, laptop: Laptop) -> None:
    laptop.commit({"Procfile": "web python app.py\n"})
    done = laptop.push()
    assert done.returncode == 1 and "Procfile" in done.stderr
    assert server.ledger().numbers() == [] and server.ref(laptop.head() + "^{commit}") == ""


def test_a_full_disk_refuses_the_push(server: Server, laptop: Laptop) -> None:
    server.layout.settings.write_text("min_free: 999999999\n")
    done = laptop.push()
    assert done.returncode == 1 and "nearly full" in done.stderr
    assert server.ledger().numbers() == []


def test_a_tree_bomb_is_refused_quickly(server: Server, laptop: Laptop) -> None:
    blob = laptop.git("hash-object", "-w", "Procfile").stdout.strip()
    tree = _mktree(laptop, "".join(f"100644 blob {blob}\tf{i}\n" for i in range(10)))
    for _ in range(9):
        tree = _mktree(laptop, "".join(f"040000 tree {tree}\td{i}\n" for i in range(10)))
    commit = laptop.git("commit-tree", tree, "-m", "bomb").stdout.strip()
    began = time.monotonic()
    done = laptop.push(f"{commit}:refs/heads/main")
    assert done.returncode == 1 and "more than 200000 files" in done.stderr
    assert time.monotonic() - began < 15


def test_a_tree_nested_too_deep_is_refused(server: Server, laptop: Laptop) -> None:
    blob = laptop.git("hash-object", "-w", "Procfile").stdout.strip()
    tree = _mktree(laptop, f"100644 blob {blob}\tf\n")
    for _ in range(60):
        tree = _mktree(laptop, f"040000 tree {tree}\t{'d' * 100}\n")
    commit = laptop.git("commit-tree", tree, "-m", "deep").stdout.strip()
    done = laptop.push(f"{commit}:refs/heads/main")
    assert done.returncode == 1 and "too long" in done.stderr


def _mktree(laptop: Laptop, entries: str) -> str:
    done = subprocess.run(
        ["git", "mktree"], input=entries, cwd=laptop.tree, env=laptop.env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", ".", ".git ", "a/b"])
def test_hostile_tree_entries_are_refused(server: Server, laptop: Laptop, name: str) -> None:
    blob = laptop.git("hash-object", "-w", "Procfile").stdout.strip()
    # By hand: git itself would not write such a tree.
    body = b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob)
    raw = b"tree %d\0" % len(body) + body
    oid = hashlib.sha1(raw).hexdigest()
    path = laptop.tree / ".git/objects" / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(raw))
    commit = laptop.git("commit-tree", oid, "-m", "x").stdout.strip()
    done = laptop.push(f"{commit}:refs/heads/main")
    assert done.returncode != 0, done.stderr
    assert server.worker.told == []


@pytest.mark.parametrize("url", ["--upload-pack=id", "https://x/\\nhost=y", "-x"])
def test_hostile_submodules_are_refused(server: Server, laptop: Laptop, url: str) -> None:
    laptop.commit({".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = "{url}"\n'})
    done = laptop.push()
    assert done.returncode != 0 and "gitmodules" in done.stderr
    assert server.worker.told == []


def test_gitmodules_as_a_link_is_refused(server: Server, laptop: Laptop) -> None:
    blob = laptop.git("hash-object", "-w", "Procfile").stdout.strip()
    commit = laptop.git("commit-tree", _mktree(laptop, f"120000 blob {blob}\t.gitmodules\n"), "-m", "x").stdout.strip()
    done = laptop.push(f"{commit}:refs/heads/main")
    assert done.returncode != 0 and "symlink" in done.stderr.lower()


def test_too_large_a_push_is_refused(server: Server, laptop: Laptop) -> None:
    server.layout.settings.write_text("max_push: 1\n")
    (laptop.tree / "big").write_bytes(random.Random(1).randbytes(3 * 2**20))
    laptop.commit({})
    done = laptop.push()
    assert done.returncode != 0 and "The push is larger than 1 MiB" in done.stderr
    assert server.worker.told == [] and not list(server.ledger().paths.repo.glob("objects/tmp_objdir*"))
    laptop.git("reset", "-q", "--hard", "HEAD~1")
    assert laptop.push().returncode == 0


def test_a_shallow_clone_deploys_and_so_does_the_full_one_after_it(server: Server, laptop: Laptop) -> None:
    for i in range(3):
        laptop.commit({"a": str(i)})
    shallow = laptop.tree.parent / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{laptop.tree}", shallow], check=True, env=laptop.env)
    ci = Laptop(server, shallow, laptop._key)
    ci.git("remote", "add", "prod", f"{server.user}@127.0.0.1:blog")
    assert ci.push().returncode == 0
    laptop.commit({"a": "more"})
    done = laptop.push()
    assert done.returncode == 0, done.stderr
    assert_consistent(server)


def test_a_rollback_moves_the_branch_back_so_that_the_newer_commit_can_be_pushed_again(
    server: Server, laptop: Laptop
) -> None:
    laptop.push()
    newer = laptop.commit({"a": "1"})
    laptop.push()
    server.ledger().commit(server.ledger().release(1))
    assert laptop.push().returncode == 0
    current = server.ledger().current()
    assert current is not None and (current.number, current.commit) == (3, newer)


def without_a_commit(server: Server) -> None:
    """A release that no push brought goes live."""
    ledger = server.ledger()
    release = ledger.open_release(Change.CONFIG, "alice")
    ledger.commit(release)
    ledger.finish(release, Status.LIVE)


def test_after_a_live_release_that_was_not_pushed_the_branch_stays_and_a_push_goes_on_from_it(
    server: Server, laptop: Laptop
) -> None:
    """It was deleted once, and with it what a clone fetched."""
    laptop.push()
    pushed = laptop.head()
    without_a_commit(server)
    server.worker.behaviour = make_fail
    laptop.commit({"app.py": "bad"})
    assert laptop.push().returncode == 1
    assert server.ref("refs/heads/main") == pushed
    server.worker.behaviour = make_live
    assert laptop.push().returncode == 0
    assert server.ref("refs/heads/main") == laptop.head()


def test_before_the_first_live_push_a_failed_one_leaves_no_branch(server: Server, laptop: Laptop) -> None:
    without_a_commit(server)
    server.worker.behaviour = make_fail
    assert laptop.push().returncode == 1
    assert server.ref("refs/heads/main") == ""
    server.worker.behaviour = make_live
    assert laptop.push().returncode == 0 and server.ref("refs/heads/main") == laptop.head()


def test_the_environment_of_a_hook_is_ours_alone(server: Server, laptop: Laptop) -> None:
    dump = server.root / "dump"
    hook = server.scripts / "hooks/pre-receive"
    hook.write_text(f"#!/bin/sh\nenv > {dump}\nexit 1\n")
    laptop.env |= {"LC_EVIL": "$(id)", "LANG": "x_YZ", "GIT_EVIL": "1", "PYTHONPATH": "/evil"}
    laptop.env["GIT_SSH_COMMAND"] += " -oSendEnv=LC_EVIL -oSendEnv=GIT_EVIL -oSendEnv=PYTHONPATH -oSendEnv=LANG"
    laptop.push()
    found = {line.split("=", 1)[0] for line in dump.read_text().splitlines()}
    config = {name for name in found if name.startswith(("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"))}
    assert found - config == {
        "PATH", "HOME", "LANG", "PWD", "SHLVL", "_", "GIT_DIR", "GIT_EXEC_PATH", "GIT_CONFIG_COUNT", "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_NOSYSTEM", "GIT_ATTR_NOSYSTEM", "GIT_TERMINAL_PROMPT", "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_PUSH_OPTION_COUNT", "SHIPIT_ASK", "SHIPIT_ANSWER",
        "GIT_TRACE2_EVENT", "GIT_TRACE2_PARENT_NAME", "GIT_TRACE2_PARENT_SID",
    } - ({"SHLVL", "_"} - found)  # fmt: skip
    assert "LANG=C.UTF-8" in dump.read_text() and "evil" not in dump.read_text().lower()


def test_many_packs_are_packed_together_behind_the_push(server: Server, laptop: Laptop) -> None:
    laptop.push()
    pack = server.ledger().paths.repo / "objects/pack"
    for i in range(51):
        laptop.commit({"a": str(i)})
        subprocess.run(["git", "-c", "fetch.unpackLimit=1", "-c", "gc.auto=0", f"--git-dir={server.ledger().paths.repo}", "fetch", "-q",
                        str(laptop.tree), "main:refs/shipit/x"], check=True, env=laptop.env)  # fmt: skip
    assert len(list(pack.glob("*.pack"))) >= 50
    assert laptop.push().returncode == 0
    for _ in range(100):
        if len(list(pack.glob("*.pack"))) <= 2:
            break
        time.sleep(0.1)
    assert len(list(pack.glob("*.pack"))) <= 2
    laptop.commit({"a": "after"})
    assert laptop.push().returncode == 0


def _small(kind: int, body: bytes) -> bytes:
    return _packed(kind, len(body), zlib.compress(body))


def _packed(kind: int, size: int, deflated: bytes) -> bytes:
    """An object as it is in a pack (gitformat-pack(5))."""
    head, rest = kind << 4 | size & 15, size >> 4
    out = bytearray()
    while rest:
        out.append(head | 0x80)
        head, rest = rest & 0x7F, rest >> 7
    return bytes([*out, head]) + deflated


def _id(kind: str, body: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(body)) + body).hexdigest()


def _bomb(kind: str, size: int) -> tuple[str, str, bytes]:
    """(ref, object id, pack) of a push of some KiB with one object of `size` bytes."""
    procfile = b"web: x\n"
    entry = b"100644 Procfile\0" + bytes.fromhex(_id("blob", procfile))
    tree, ref, more = entry, "refs/heads/main", []
    if kind == "tree":
        tree = entry * (size // len(entry))
    if kind == "delta":
        # "Copy 64 KiB of the base", again and again.
        base, times = b"a" * 65536, size // 65536
        wanted = base * times
        sizes = b"".join(bytes([n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21]) for n in
                         (len(base), len(wanted)))  # fmt: skip
        delta = sizes + b"\x80" * times
        tree = entry + b"100644 large\0" + bytes.fromhex(_id("blob", wanted))
        more = [
            _small(3, base),
            _packed(7, len(delta), bytes.fromhex(_id("blob", base)) + zlib.compress(delta)),
        ]
    said = b"a" * size if kind == "commit" else b"x\n"
    who = b"A <a@example.org> 1 +0000"
    commit = b"tree %s\nauthor %s\ncommitter %s\n\n%s" % (_id("tree", tree).encode(), who, who, said)
    oid = _id("commit", commit)
    if kind == "tag":
        tag = b"object %s\ntype commit\ntag v1\ntagger %s\n\n%s" % (oid.encode(), who, b"a" * size)
        more, oid, ref = [_small(4, tag)], _id("tag", tag), "refs/tags/v1"
    objects = [_small(3, procfile), _small(2, tree), _small(1, commit), *more]
    body = b"PACK" + struct.pack(">II", 2, len(objects)) + b"".join(objects)
    return ref, oid, body + hashlib.sha1(body).digest()


@pytest.mark.parametrize("kind", ["commit", "tag", "tree", "delta"])
def test_an_object_that_unpacks_to_more_memory_than_a_push_may_take_is_refused(
    server: Server, laptop: Laptop, kind: str
) -> None:
    server.layout.settings.write_text("push_memory: 64\n")
    ref, oid, pack = _bomb(kind, 80 * 2**20)
    assert len(pack) < 2**20
    line = f"{'0' * 40} {oid} {ref}\0report-status side-band-64k\n".encode()
    done = subprocess.run(
        [*laptop.ssh_argv(), "git-receive-pack 'blog'"],
        input=b"%04x" % (len(line) + 4) + line + b"0000" + pack, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    said = done.stderr.decode()
    assert done.returncode == 2 and "needs more than 64 MiB of memory" in said and "Nothing was received" in said, done
    assert b"unpacker error" in done.stdout
    assert server.worker.told == [] and not list(server.ledger().paths.repo.glob("objects/pack/*.pack"))
    # And the next one is taken.
    assert laptop.push().returncode == 0


def test_a_commit_with_a_message_of_megabytes_is_refused_without_being_read(server: Server, laptop: Laptop) -> None:
    message = laptop.tree.parent / "message"
    message.write_text("a" * (2 * 2**20))
    laptop.git("commit", "-q", "--allow-empty", "-F", str(message))
    done = laptop.push()
    assert done.returncode == 1 and "is larger than 1 MiB" in done.stderr, done.stderr
    assert server.worker.told == [] and server.ref("refs/heads/main") == ""
