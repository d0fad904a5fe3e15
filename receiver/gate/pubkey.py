"""One line of an OpenSSH public key file, parsed strictly. `ssh-keygen -lf` is too lax: it accepts lines with options
of their own and files of several lines (threat row 5), so the format is read here (RFC 4253 6.6, RFC 5656,
PROTOCOL.u2f).
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from receiver.errors import Rejected

# How many length-prefixed fields follow the type's own name in the blob.
_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
_MAX = 16 * 1024
# The least that OpenSSH 9 calls safe; smaller keys can be factored.
_RSA_BITS = 2048


def parse(text: str) -> tuple[str, str, str]:
    """(type, base64, fingerprint as `ssh-keygen -l` prints it). The comment is dropped. Raises Rejected."""
    line = text.removesuffix("\n").removesuffix("\r")
    if len(line) > _MAX:
        raise Rejected("The public key is too long.")
    if "PRIVATE KEY" in line:
        raise Rejected("This is a private key; keep it to yourself.", hint="Send the file that ends in .pub.")
    if any(not c.isprintable() and c != "\t" for c in line):
        raise Rejected(
            "A public key is exactly one line.", hint="Add one key at a time: shipit ssh-keys:add NAME < id_ed25519.pub"
        )
    words = line.split()
    if len(words) < 2 or words[0] not in _FIELDS:
        raise Rejected(
            "This is not a public key that shipit takes.",
            hint=f"One line that begins with one of: {', '.join(_FIELDS)}",
        )
    kind, blob = words[0], words[1]
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected("The public key is damaged: its base64 cannot be read.") from error
    fields = _split(raw)
    if len(fields) != 1 + _FIELDS[kind] or fields[0] != kind.encode():
        raise Rejected(f"The public key is damaged: it is not a key of the type {kind}.")
    if kind == "ssh-rsa" and int.from_bytes(fields[2], "big").bit_length() < _RSA_BITS:
        raise Rejected(f"RSA keys need {_RSA_BITS} bits at least.", hint="Make a better one: ssh-keygen -t ed25519")
    # Encoded again from the bytes, so that a key has only one spelling.
    digest = base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")
    return kind, base64.b64encode(raw).decode(), f"SHA256:{digest}"


def _split(raw: bytes) -> list[bytes]:
    """The length-prefixed strings of RFC 4251 5; an empty list if the lengths do not add up."""
    fields, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        if at + 4 + size > len(raw):
            return []
        fields.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return fields
