#!/usr/bin/env bash
# Makes this machine a shipit server, or brings one up to this clone's version. What it changes: docs/installing.md
#
# This half brings packages and builds the new version aside; receiver/setup does the rest from that version.
set -Eeuo pipefail
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
prefix=/usr/lib/shipit
log=/var/log/shipit-install.log
python=/usr/bin/python3 # never PATH's: a pyenv below /root cannot be run by the service users

usage() {
    cat <<'TEXT'
Usage: ./install.sh [options]       install, or upgrade in place
       ./install.sh --demo          install if needed, then watch a push, a rollback and a failed push
       ./install.sh --back          take the last upgrade back: the version before it receives again
       ./install.sh --uninstall     stop receiving; apps and their data stay and go on serving
       ./install.sh --purge         remove everything, apps and their data included

  --key FILE        public key(s) that may push, as admin; repeatable
                    (default: the authorized_keys of root and of whoever called sudo)
  --domain NAME     apps answer at APP.NAME (default: this host's full name, else IP.sslip.io)
  --http-port PORT  where the proxy listens (default: 80)
  --tls             HTTPS for every app, by certificates from Let's Encrypt, to whose terms you agree by this; brings
                    certbot (for some apps only: apt-get install certbot; shipit tls:enable APP)
  --yes             do not ask before --purge
  --help            this text

Debian 12 and 13, Ubuntu 22.04 and 24.04. Where systemd is not running (a container), an embedded supervisor is used.
TEXT
}

die() { # message, hint, exit code
    [ -z "${current_step:-}" ] || printf '\n' >&2
    printf ' !     %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '       (%s)\n' "$2" >&2
    exit "${3:-1}"
}

mode=install
demo=no
tls=no
yes=no
words=()
asked=("$@")
while [ $# -gt 0 ]; do
    case $1 in
        --key | --domain | --http-port)
            [ $# -ge 2 ] || die "$1 needs a value." "./install.sh --help" 2
            words+=("$1" "$2")
            shift 2
            ;;
        --key=* | --domain=* | --http-port=*)
            words+=("${1%%=*}" "${1#*=}")
            shift
            ;;
        --demo) demo=yes && shift ;;
        --tls) tls=yes && words+=(--tls) && shift ;;
        --uninstall | --purge | --back) mode=${1#--} && shift ;;
        --yes) yes=yes && shift ;;
        --help | -h) usage && exit 0 ;;
        *) die "install.sh has no option $1." "./install.sh --help" 2 ;;
    esac
done
if [ "$mode" != install ] && { [ "$demo" = yes ] || [ ${#words[@]} -gt 0 ]; }; then
    die "--$mode takes no other option but --yes." "./install.sh --help" 2
fi
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "This needs root, and there is no sudo here." "su -c '$here/install.sh'" 77
    exec sudo -- "$here/install.sh" "${asked[@]}"
fi

started=${EPOCHREALTIME/[.,]/}
current_step=
begin() { # label
    current_step=$1
    step_started=${EPOCHREALTIME/[.,]/}
    printf '  %-11s ' "$1"
}
finish() { # what was done
    local ms=$(((${EPOCHREALTIME/[.,]/} - step_started) / 1000))
    printf '%-52s %3d.%d s\n' "$1" $((ms / 1000)) $((ms % 1000 / 100))
    current_step=
}
quietly() { # command: its output is kept in the log and shown when it fails
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null
}
failed() { # exit code
    trap - ERR EXIT
    cleanup
    printf '\n' >&2
    tail -n 15 "$log" | sed 's/^/         /' >&2 || :
    printf ' !     The step "%s" failed (exit code %s).\n' "$current_step" "$1" >&2
    if [ -e "$prefix/current" ]; then
        printf '       The installed version is untouched and apps go on serving.\n' >&2
    else
        printf '       Nothing but packages was changed.\n' >&2
    fi
    printf '       (the whole log: %s; then run ./install.sh again: it goes on where it stopped)\n' "$log" >&2
    exit 1
}

policy=/usr/sbin/policy-rc.d
policy_is_ours=no
building=
cleanup() {
    if [ "$policy_is_ours" = yes ]; then rm -f "$policy"; fi
    if [ -n "$building" ]; then rm -rf "$building"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

: >>"$log" && chmod 0640 "$log"
exec 9>/run/shipit-install.lock
flock --nonblock 9 || die "Another install.sh is running on this machine." "wait for it to end" 75

# Made before nginx is: whatever fails after that, a later run knows whose nginx it is.
nginx_is_ours=/var/lib/shipit/nginx-is-ours

if [ "$mode" = back ]; then
    before=
    for known in "$prefix"/versions/*; do
        if [ -e "$known/complete" ] && [ "$(readlink -f "$known")" != "$(readlink -f "$prefix/current")" ]; then
            before=$known
        fi
    done
    [ -n "$before" ] || die "No other version is kept on this machine; the one that runs goes on." "ls $prefix/versions"
    nginx_was_here=yes
    if [ -e "$nginx_is_ours" ]; then nginx_was_here=no; fi
    trap - EXIT
    # That version's own code: it knows its units and its places.
    exec "$before/bin/python" -I -m receiver.setup install --version "${before##*/}" \
        --nginx-was-here=$nginx_was_here --started "$started" 9>&-
fi
if [ "$mode" != install ]; then
    [ -x "$python" ] || die "$python is missing, which --$mode needs." "apt-get install python3"
    trap - EXIT
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here exec "$python" -m receiver.setup "$mode" "--yes=$yes" 9>&-
fi
trap 'failed $?' ERR

# -- the system

[ -r /etc/os-release ] || die "This is not a system shipit knows (/etc/os-release is missing)."
# shellcheck source=/dev/null
system=$(. /etc/os-release && printf '%s %s' "${ID:-}" "${VERSION_ID:-}")
case $system in
    'debian 12' | 'debian 13' | 'ubuntu 24.04') nginx_package=nginx ;;
    'ubuntu 22.04') nginx_package=nginx-core ;; # nginx-light knows no `geo`
    *) die "shipit runs on Debian 12 and 13 and on Ubuntu 22.04 and 24.04; this is ${system:-unknown}." ;;
esac
if [ -d /run/systemd/system ]; then manager=systemd; else manager=embedded; fi
printf 'shipit on %s, processes kept by %s\n' "$system" \
    "$([ $manager = systemd ] && printf systemd || printf 'the embedded supervisor (systemd is not running)')"

# What root trusts and where it asks holds for everything started below.
if [ -n "${SSL_CERT_FILE:-}" ]; then
    export PIP_CERT=${PIP_CERT:-$SSL_CERT_FILE} REQUESTS_CA_BUNDLE=${REQUESTS_CA_BUNDLE:-$SSL_CERT_FILE}
fi

# -- packages

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

apt() {
    local trust=()
    [ -z "${SSL_CERT_FILE:-}" ] || trust=(-o "Acquire::https::CaInfo=$SSL_CERT_FILE")
    quietly env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get --quiet --assume-yes \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "${trust[@]}" "$@" 9>&-
}

begin packages
missing=()
for package in ca-certificates git openssh-server python3 python3-venv rsync; do
    installed "$package" || missing+=("$package")
done
if [ "$tls" = yes ] && [ ! -x /usr/bin/certbot ]; then missing+=(certbot); fi
if [ ! -x /usr/sbin/nginx ]; then
    mkdir -p "${nginx_is_ours%/*}"
    : >"$nginx_is_ours"
    missing+=("$nginx_package")
fi
nginx_was_here=yes
if [ -e "$nginx_is_ours" ]; then nginx_was_here=no; fi
if [ $manager = embedded ]; then
    # systemd-socket-proxyd, the front of apps that only know $PORT; it needs no running systemd.
    [ -x /lib/systemd/systemd-socket-proxyd ] || missing+=(systemd)
fi
if [ ${#missing[@]} -gt 0 ]; then
    if [ $manager = embedded ] && [ ! -e "$policy" ]; then
        # Without systemd, packages start their daemons by init scripts; here supervisord is to start them.
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
        policy_is_ours=yes
    fi
    apt update
    apt install --no-install-recommends "${missing[@]}"
    if [ "$policy_is_ours" = yes ]; then rm -f "$policy" && policy_is_ours=no; fi
    finish "installed ${missing[*]}"
else
    finish "nothing missing"
fi

# -- Python

begin python
version=$("$python" -c 'import platform; print(platform.python_version())')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$python is $version; shipit needs 3.10 or newer."
setpriv --reuid=65534 --regid=65534 --clear-groups env -i "$python" -I -c '' 2>>"$log" ||
    die "$python cannot be run by an unprivileged user." "ls -lL $python"
# By its exact name from here on: an upgrade of the system gives `python3` to another version, which finds no package.
python=$(readlink -f "$python")
finish "$python $version"

# -- the version, built aside: what runs now is not touched before all of it is ready

begin version
hash=$({
    printf '%s\n' "$version"
    cd "$here"
    find receiver hooks libexec templates pyproject.toml requirements.lock install.sh \
        -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -c1-10)
new=
for known in "$prefix"/versions/*-"$hash"; do
    if [ -e "$known/complete" ]; then new=$known; fi
done

build() {
    local pip
    pip=$(find /usr/share/python-wheels -name 'pip-*.whl' 2>/dev/null | sort | tail -n 1)
    quietly "$python" -m venv --without-pip "$building"
    if [ -x "$prefix/current/bin/uv" ]; then
        cp "$prefix/current/bin/uv" "$building/uv"
    elif [ -n "$pip" ]; then
        awk '/^[a-z]/ { wanted = /^uv==/ } wanted' "$here/requirements.lock" >"$building/uv.lock"
        PYTHONPATH=$pip quietly "$building/bin/python" -m pip install --disable-pip-version-check --no-compile \
            --no-cache-dir --require-hashes --requirement "$building/uv.lock"
        cp "$building/bin/uv" "$building/uv"
    else
        die "The wheel of pip is missing below /usr/share/python-wheels." "apt-get install --reinstall python3-pip-whl"
    fi
    local install=("$building/uv" pip install --python "$building/bin/python" --compile-bytecode)
    export UV_CACHE_DIR=/var/cache/shipit/uv
    quietly "${install[@]}" --require-hashes --requirement "$here/requirements.lock"
    quietly "${install[@]}" --no-deps --build-constraints "$here/requirements-build.lock" "$here"
    # .lock is uv's, and everybody may write it.
    rm -f "$building/uv" "$building/uv.lock" "$building/.lock"
    # A program that was started through `current` goes on importing from the version it began with.
    cat >"$("$building/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shipit-pin.pth" <<'PTH'
import os, sys; sys.path[:] = [os.path.realpath(sys.prefix) + p[len(sys.prefix):] if p.startswith(sys.prefix + "/") else p for p in sys.path]
PTH
    # Seen as the service users see it, before anything depends on it.
    quietly setpriv --reuid=65534 --regid=65534 --clear-groups env -i "$building/bin/python" -I -c \
        'import receiver.cli.main, receiver.settings, git, jinja2, jsonschema, yaml'
    : >"$building/complete"
    sync -f "$building"
}

if [ -n "$new" ]; then
    finish "${new##*/} is built already"
else
    for stale in "$prefix"/versions/*; do
        if [ -d "$stale" ] && [ ! -e "$stale/complete" ]; then rm -rf "$stale"; fi
    done
    mkdir -p "$prefix/versions"
    building=$prefix/versions/$(date -u +%Y%m%dT%H%M%S)-$hash
    build
    new=$building
    building=
    finish "${new##*/} built"
fi

# -- the rest is Python's: accounts, ssh, proxy, services; it reports its own failures

trap - ERR
"$new/bin/python" -I -m receiver.setup install --version "${new##*/}" --nginx-was-here=$nginx_was_here \
    --demo=$demo --started "$started" "${words[@]}" 9>&- || exit $?

if [ "$demo" = yes ]; then
    [ -d "$here/examples/hello" ] || die "This clone has no examples/hello to push."
    exec "$new/bin/python" -I -m receiver.cli.demo "$here/examples/hello" 9>&-
fi
