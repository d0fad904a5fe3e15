"""The launcher: replaces itself by one process of an app, or stays above its shell (init.py). Runs as the app's user,
before every process and every one-off command.

    launch APP vN TYPE INDEX            the process TYPE.INDEX of release vN
    launch --once APP vN TYPE INDEX     a scheduled run, which ends; not beside another unless its schedule allows it
    launch --check APP N TYPE INDEX     the command healthcheck of that process, beside it
    launch --release APP N              the release command
    launch --run=ID APP N               the one-off command releases/runs/ID.json

The config vars come as systemd's credential `config`. With `--stdin` they come on standard input, and the command gets
/dev/null. With `--user` (embedded engine) the launcher is started as root, reads their file and becomes the app's user
for good. `--root=DIR` puts all paths below DIR (tests). The user waits for the launcher, so it is started with -I -S
and uses only the standard library, and only the parts that import fast.
"""

from __future__ import annotations

import os
import sys

# json and signal import re and enum, 8 of 18 ms; these private modules of CPython don't. Another Python may lack them.
try:
    from _signal import SIG_DFL, SIGPIPE, SIGXFSZ
    from _signal import signal as handle
except ImportError:
    from signal import SIG_DFL, SIGPIPE, SIGXFSZ
    from signal import signal as handle

from receiver.inside.ports import PORTS

if False:  # typing is slow to import
    from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "TERM")
PR_SET_NO_NEW_PRIVS = 38
GOES_ON = 199  # exit code of a run that is not started because an earlier one goes on
# Where a slug keeps what an app's new data begins with, by its place of `storage`.
FIRST = ".storage"
# A place of `storage` with one of these endings is a file, which the app creates; all others are directories.
FILES = (".db", ".sqlite", ".sqlite3", ".json", ".yml", ".yaml", ".ini", ".log", ".txt")
# Variables that an image sets for itself.
OF_THE_MACHINE = ("PATH", "HOME", "USER", "LOGNAME", "LANG")
# A process that ended is started again at once so many times, then after 1, 2, 4 … s, at most LONGEST_PAUSE. A process
# that stayed up for STAYED_UP seconds begins again at zero.
AT_ONCE, LONGEST_PAUSE, STAYED_UP = 4, 30.0, 60.0


def main(argv: list[str]) -> None:
    """Replace this program by the command, run by bash; returns only by an exception."""
    flags = [word for word in argv if word.startswith("--")]
    app, number, *process = [word for word in argv if not word.startswith("--")]
    number = number.removeprefix("v")  # units have it in their name
    given = dict(flag.partition("=")[::2] for flag in flags)
    root = given.get("--root", "")
    apps = f"{root}/var/lib/shipit/apps/{app}"
    sockets = f"{root}/run/shipit/{app}/v{number}"

    config = read_config(f"{apps}/config/v{number}.json", "--stdin" in given)
    if "--user" in given:
        become(f"app-{app}")
    release = read_json(f"{apps}/releases/v{number}/release.json")
    name = ".".join(process) if process else "run.1" if "--run" in given else "release.1"
    slug = f"{apps}/slugs/v{release['slug']}"
    config = {**dict(release["env"]), **config}
    runtime = release.get("process_env") or of_older_release()
    env = environment(config, runtime, slug, f"{apps}/data", app, number, commit_of(release), name)
    os.chdir(slug)
    for kept, place in release.get("storage", ()):
        make_place(f"{apps}/data/{kept}", f"{slug}/{FIRST}/{place}")

    if "--run" in given:
        asked = read_json(f"{apps}/releases/runs/{given['--run']}.json")
        command = asked["command"]
        if asked.get("alone"):
            go_alone(f"{root}/run/shipit/{app}/{asked['alone']}.lock", asked["alone"], GOES_ON)
    elif "--once" in given:
        found = next(entry for entry in release["processes"] if entry["type"] == process[0])
        command = found["command"]
        if not found["schedule"]["overlap"]:
            go_alone(f"{root}/run/shipit/{app}/{process[0]}.lock", process[0], 0)
    elif "--release" in given:
        command = release["release_command"]
    else:
        found = next(entry for entry in release["processes"] if entry["type"] == process[0])
        socket, port = f"{sockets}/{name}.sock", f"{sockets}/{name}.port"
        if "--check" in given:
            command = found["check"]["command"]
            env |= {"SOCKET": socket} | ({"PORT": read_port(port)} if found["listen"] == "port" else {})
        else:
            command = found["command"]
            make_dir(sockets)
            wait_for_turn(f"{sockets}/{name}.starts", name)
            if not (release.get("image") or release.get("machine")):
                env |= listen(found["listen"], socket, port, env, runtime["socket"])
    if release.get("machine"):
        # Imported here, not at the top: only a virtual machine needs it.
        from receiver.inside import machine

        if given.keys() & {"--check", "--release", "--run"}:
            raise SystemExit(machine.NO_COMMANDS)
        env = {key: value for key, value in env.items() if key in config or key not in (*OF_THE_MACHINE, "DATA_DIR")}
        wish = release.get("capabilities", {}).get("vm") or {}
        path = socket if found["listen"] != "none" else ""
        raise SystemExit(machine.run(apps, slug, number, process[1], found, wish, env, sockets, path))
    if release.get("image"):
        # Imported here, not at the top: only a container needs it.
        from receiver.inside import container

        env = {key: value for key, value in env.items() if key in config or key not in OF_THE_MACHINE}
        check = found["check"] if not given.keys() & {"--check", "--release", "--run", "--once"} else None
        one = container.Container(apps, app, slug, command, env, release.get("storage", ()), check)
        if given.keys() & {"--check", "--release", "--run"}:
            words = one.beside(entrypoint="--release" in given)
            raise SystemExit(watch(lambda: become_words(words, one.env)))
        raise SystemExit(one.stay(socket if found["listen"] != "none" else ""))
    if given.keys() & {"--check", "--release", "--run"}:
        raise SystemExit(watch(lambda: become_program(command, env)))
    # Imported here, not at the top, as the front is: only a command below a shell needs it.
    from receiver.inside import init

    if init.stays_above(command, env["PATH"]):
        raise SystemExit(init.stay(lambda: become_program(command, env)))
    become_program(command, env)


def make_place(path: str, first: str) -> None:
    """Make the data that a link of the release leads to: a copy of what the commit has there (`first`), else an empty
    directory; for a database file, the directory around it. Existing data is left as it is."""
    if os.path.lexists(path):
        return
    try:
        os.makedirs(os.path.dirname(path), 0o770, exist_ok=True)  # noqa: PTH103, PTH120
        if os.path.lexists(first):
            # Imported only when needed, as below.
            from receiver.inside import first as data

            data.copy(first, path)
        elif not path.endswith(FILES):
            os.makedirs(path, 0o770, exist_ok=True)  # noqa: PTH103
    except OSError as error:
        if not os.path.lexists(path):
            print(f"shipit: {path}: {error.strerror}", flush=True)


def wait_for_turn(path: str, name: str) -> None:
    """Pause before the start, if the starts before it all ended soon; the launcher counts these in the file `path`.

    So a process may lack what it needs for any time: it is tried again for ever, but not faster than the machine can
    bear. The first restarts come at once, which suits a process that crashes now and then.
    """
    from time import monotonic, sleep

    now = monotonic()
    try:
        count, began = read_text(path).split()
        soon = 0 <= now - float(began) < STAYED_UP
        ended = int(count) + 1 if soon else 0
    except (OSError, ValueError):
        ended = 0
    pause = min(2.0 ** min(ended - AT_ONCE, 16), LONGEST_PAUSE) if ended > AT_ONCE else 0.0
    try:  # if the note cannot be written, the process starts all the same
        with open(path, "w") as file:  # noqa: PTH123
            file.write(f"{ended} {now + pause:.3f}\n")
    except OSError:
        pass
    if pause:
        print(f"shipit: {name} ended {ended} times soon after its start; it starts again in {pause:g} s", flush=True)
        sleep(pause)


def become_program(command: str, env: dict[str, str]) -> None:
    """Replace this program by bash, running the command."""
    become_words(["/bin/bash", "-c", command], env)


def become_words(words: list[str], env: dict[str, str]) -> None:
    """Replace this program by another, with the signal settings that programs expect."""
    # Python ignores these signals, and an ignored signal stays ignored across execve(2).
    for number in (SIGPIPE, SIGXFSZ):
        handle(number, SIG_DFL)
    os.execve(words[0], [os.path.basename(words[0]), *words[1:]], env)  # noqa: PTH119


def watch(become: Any) -> int:
    """Run a one-off command to its end, in a child that `become` replaces by it; returns its exit code, or 128 + the
    signal that killed it.

    Not by exec: systemd counts a program that SIGTERM, SIGINT, SIGHUP or SIGPIPE killed as successful.
    """
    import signal

    asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    for number in asked:
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        for number in asked:
            signal.signal(number, signal.SIG_DFL)
        become()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def read_config(path: str, given: bool) -> dict[str, str]:
    """The config vars: from standard input, from systemd's credential `config`, or, for root, from the file itself."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    config: dict[str, str] = (
        parse(read_stdin()) if given else read_json(f"{credentials}/config" if credentials else path)
    )
    return config


def read_stdin() -> str:
    """All of standard input, which is replaced by /dev/null."""
    parts = []
    while part := os.read(0, 1 << 20):
        parts.append(part)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return b"".join(parts).decode()


def of_older_release() -> Any:
    """The `process_env` of a release whose record has none, because an older shipit made it."""
    from receiver.runtimes.python import older

    return older.PROCESS_ENV


def environment(
    config: dict[str, str], runtime: Any, slug: str, data: str, app: str, number: str, commit: str, process: str
) -> dict[str, str]:
    """The command's whole environment; of the launcher's own, only PASSED_ON is kept.

    `runtime` is what the release's runtimes add (model.ProcessEnv)."""
    user = f"app-{app}"
    path = [f"{slug}/{directory}" for directory in runtime["path"]]
    return {
        # A config var may say otherwise.
        "LANG": "C.UTF-8",
        "DATA_DIR": data,
        **filled(runtime["variables"], {"SLUG": slug}, {}),
        **config,
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "PATH": ":".join([*path, PATH]),
        "HOME": data,
        "USER": user,
        "LOGNAME": user,
        "SHIPIT_APP": app,
        "SHIPIT_RELEASE": f"v{number}",
        "SHIPIT_COMMIT": commit,
        "SHIPIT_PROCESS": process,
    }


def filled(pairs: Any, known: dict[str, str], before: dict[str, str]) -> dict[str, str]:
    """Variables of the runtimes, with the names in `known` and the variable's own value `before` filled in."""
    found = {}
    for name, value in pairs:
        for word, text in {**known, name: before.get(name, "")}.items():
            value = value.replace(f"${word}", text)
        found[name] = value.strip()
    return found


def listen(kind: str, path: str, port_file: str, env: dict[str, str], tells: Any) -> dict[str, str]:
    """Prepare the socket or port on which the process listens; returns the variables that name it, and those in
    `tells`, by which the runtimes' servers learn it."""
    if kind == "none":
        return {}
    try:  # noqa: SIM105 - contextlib is slow to import
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass
    if kind == "port":
        # Imported here, not at the top: only a process on a port needs it.
        from receiver.inside.front import start_front

        return {"PORT": str(start_front(path, port_file))}
    # No request goes to this port. But some programs read $PORT, as on Heroku, and must find one.
    port = PORTS[os.getpid() % len(PORTS)]
    return {"SOCKET": path, "PORT": str(port), **filled(tells, {"SOCKET": path}, env)}


def go_alone(path: str, name: str, code: int) -> None:
    """Hold a lock for as long as the command and all it starts live; if another run has it, end with exit code `code`.

    The lock is one for all releases: a run of the last one may go on when the next is live.
    """
    from fcntl import LOCK_EX, LOCK_NB, flock

    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        print(f"shipit: {name} is not started: an earlier run of it goes on", flush=True)
        raise SystemExit(code) from None
    os.set_inheritable(lock, True)


def make_dir(path: str) -> None:
    """Make the release's directory of sockets. It inherits set-group-id bit and group, so the proxy may connect."""
    try:  # noqa: SIM105
        os.mkdir(path, 0o750)  # noqa: PTH102
    except FileExistsError:
        pass


def become(user: str) -> None:
    """Give up root for good: groups, ids; and programs started from here can gain no rights (no_new_privs)."""
    import ctypes
    import pwd

    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.umask(0o007)
    if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("prctl(PR_SET_NO_NEW_PRIVS) failed")


class Decoder:
    """What the C scanner reads from a JSONDecoder (json/decoder.py); array_hook from Python 3.15 on."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float, parse_int, parse_constant = float, int, float


def commit_of(release: Any) -> str:
    """The commit of a release; a record of an older shipit has it in another field."""
    origin = release.get("origin")
    return (origin["id"] if origin else release.get("commit")) or ""


def read_json(path: str) -> Any:
    return parse(read_text(path))


def parse(text: str) -> Any:
    decoder: Any = Decoder
    try:
        from _json import make_scanner

        return make_scanner(decoder)(text, 0)[0]
    except Exception:  # noqa: BLE001 - a later Python may ask more of its decoder; the app must start all the same
        import json

        return json.loads(text)


def read_port(path: str) -> str:
    """The port of a process, from the link that start_front made; older versions wrote a file."""
    return os.readlink(path) if os.path.islink(path) else read_text(path)  # noqa: PTH114, PTH115


def read_text(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read().strip()


if __name__ == "__main__":
    main(sys.argv[1:])
