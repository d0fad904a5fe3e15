"""Whether a firewall of this machine blocks requests to the proxy. Changes nothing. If its rules are more complicated
than this module understands, it claims nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from receiver.system.run import run

Rule = Mapping[str, Any]


def blocks(port: int, root: Path = Path("/")) -> str:
    """What to type so that TCP connections from outside reach `port`; "" if nothing seems to block them."""
    if _ufw_blocks(root, port):
        return f"ufw allow {port}/tcp"
    if shutil.which("firewall-cmd") and run(["firewall-cmd", "--state"], check=False).code == 0:
        asked = [f"--query-port={port}/tcp", *(["--query-service=http"] if port == 80 else [])]
        if all(run(["firewall-cmd", one], check=False).code == 1 for one in asked):
            return f"firewall-cmd --add-port={port}/tcp    (and once more with --permanent)"
        return ""
    if not shutil.which("nft"):
        return ""
    listed = run(["nft", "-j", "list", "ruleset"], check=False)
    try:
        parts = json.loads(listed.out)["nftables"]
    except (ValueError, KeyError):
        return ""
    chain = dropping(parts, port)
    return (
        f"nft insert rule {chain} tcp dport {port} accept    (and into the file that your rules are loaded from)"
        if chain
        else ""
    )


def _ufw_blocks(root: Path, port: int) -> bool:
    """ufw(8) writes each allowed port as a comment above its rule: `### tuple ### allow tcp 80,443 ...`."""
    try:
        if "ENABLED=yes" not in (root / "etc/ufw/ufw.conf").read_text():
            return False
        if 'DEFAULT_INPUT_POLICY="ACCEPT"' in (root / "etc/default/ufw").read_text():
            return False
        rules = (root / "etc/ufw/user.rules").read_text()
    except OSError:
        return False
    for line in rules.splitlines():
        words = line.split()
        if words[:4] == ["###", "tuple", "###", "allow"] and words[4] in ("tcp", "any") and _among(words[5], port):
            return False
    return True


def _among(text: str, port: int) -> bool:
    """Whether `80`, `80,443`, `1:100` or `any` includes the port."""
    for part in text.split(","):
        low, _, high = part.partition(":")
        if part == "any" or (low.isdecimal() and int(low) <= port <= int(high or low)):
            return True
    return False


def dropping(parts: Sequence[Mapping[str, Any]], port: int) -> str:
    """The chain (`family table name`) of a ruleset in `nft -j list ruleset`'s form whose rules or policy drop a new TCP
    connection from outside to `port`; "" if none certainly does."""
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    for part in parts:
        if rule := part.get("rule"):
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
    for part in parts:
        chain = part.get("chain", {})
        if chain.get("hook") != "input" or chain.get("family") not in ("inet", "ip"):
            continue
        here = (chain["family"], chain["table"], chain["name"])
        fate = _fate(rules, here, port, 0)
        if fate == "drop" or (fate == "" and chain.get("policy") == "drop"):
            return " ".join(here)
    return ""


def _fate(
    rules: Mapping[tuple[str, str, str], Sequence[Rule]], chain: tuple[str, str, str], port: int, deep: int
) -> str:
    """ "accept", "drop", "unknown", or "" if the connection reaches the end of the chain."""
    for rule in rules.get(chain, []) if deep < 16 else []:
        sure = True
        for step in rule.get("expr", []):
            (kind, what), *_ = step.items()
            if kind == "match":
                met = _met(what, port)
                if met is False:
                    break
                sure = sure and met is True
            elif kind == "xt":
                # nft does not show what iptables' own modules test; mostly it is that a connection is an old one.
                if what.get("name") == "conntrack":
                    break
                sure = False
            elif kind in ("accept", "drop", "reject"):
                if sure:
                    return "accept" if kind == "accept" else "drop"
                if kind == "accept":
                    return "unknown"
            elif kind in ("jump", "goto"):
                fate = _fate(rules, (chain[0], chain[1], what["target"]), port, deep + 1)
                if fate and (sure or fate != "drop"):
                    return fate if sure else "unknown"
                if kind == "goto" and sure:
                    return ""
            elif kind == "return":
                if sure:
                    return ""
                return "unknown"
            elif kind in ("vmap", "queue", "limit"):
                return "unknown"
    return ""


def _met(match: Mapping[str, Any], port: int) -> bool | None:
    """Whether a new TCP connection over IPv4 from outside to `port` matches; None if that is not known."""
    left, right, negated = match.get("left", {}), match.get("right"), match.get("op") == "!="
    met: bool | None = None
    if "meta" in left:
        key = left["meta"].get("key")
        if key in ("iif", "iifname"):
            met = False if right == "lo" else None
        elif key == "l4proto":
            met = _holds(right, ("tcp", 6))
        elif key == "nfproto":
            met = _holds(right, ("ipv4",))
    elif left.get("ct", {}).get("key") == "state":
        met = _holds(right, ("new",))
    elif "payload" in left:
        protocol, name = left["payload"].get("protocol"), left["payload"].get("field")
        if protocol in ("udp", "icmp", "icmpv6", "ip6"):
            met = False
        elif (protocol, name) == ("tcp", "dport"):
            met = _holds(right, (port,))
        elif (protocol, name) == ("ip", "protocol"):
            met = _holds(right, ("tcp", 6))
    return met if met is None or not negated else not met


def _holds(right: Any, values: Sequence[Any]) -> bool | None:
    """Whether a value, a list, a set or a range of nftables includes one of these; None for a named set."""
    if isinstance(right, Mapping):
        if "range" in right:
            low, high = right["range"]
            return any(isinstance(v, int) and isinstance(low, int) and low <= v <= high for v in values)
        right = right.get("set")
    if isinstance(right, str) and right.startswith("@"):
        return None
    if isinstance(right, list):
        found = [_holds(one, values) for one in right]
        return True if True in found else None if None in found else False
    return right in values
