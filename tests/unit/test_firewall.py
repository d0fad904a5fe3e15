"""What is understood of a machine's firewall, and that nothing is claimed of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from receiver.system import firewall

RULES = json.loads((Path(__file__).parent / "data/nftables.json").read_text())["nftables"]
UFW = {
    "etc/ufw/ufw.conf": "ENABLED=yes\n",
    "etc/default/ufw": 'DEFAULT_INPUT_POLICY="DROP"\n',
    "etc/ufw/user.rules": "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n",
}


@pytest.mark.parametrize(("port", "dropped"), [(80, True), (8200, True), (22, False), (443, False), (8050, False)])
def test_a_port_that_no_rule_of_nftables_lets_in_is_told(port: int, dropped: bool) -> None:
    assert firewall.dropping(RULES, port) == ("inet filter input" if dropped else "")


def test_nothing_is_claimed_of_rules_that_say_more_than_is_understood() -> None:
    chain = {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}
    home = {"family": "ip", "table": "filter", "chain": "INPUT"}
    limited = {**home, "expr": [{"xt": {"type": "match", "name": "hashlimit"}}, {"accept": None}]}
    old = {**home, "expr": [{"xt": {"type": "match", "name": "conntrack"}}, {"accept": None}]}
    assert firewall.dropping([{"chain": chain}], 80) == "ip filter INPUT"
    assert firewall.dropping([{"chain": chain}, {"rule": old}], 80) == "ip filter INPUT"
    assert firewall.dropping([{"chain": chain}, {"rule": limited}], 80) == ""
    assert firewall.dropping([{"chain": {**chain, "policy": "accept"}}, {"rule": old}], 80) == ""
    assert firewall.dropping([], 80) == ""


def test_ufw_is_asked_for_what_it_lets_in(tmp_path: Path) -> None:
    assert not firewall._ufw_blocks(tmp_path, 80)
    for name, text in UFW.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert firewall.blocks(80, tmp_path) == "ufw allow 80/tcp"
    assert not firewall._ufw_blocks(tmp_path, 22)
    rules = tmp_path / "etc/ufw/user.rules"
    for ports in ("80,443", "1:1024", "any"):
        rules.write_text(
            UFW["etc/ufw/user.rules"] + f"### tuple ### allow tcp {ports} 0.0.0.0/0 any 0.0.0.0/0 Nginx%20Full - in\n"
        )
        assert not firewall._ufw_blocks(tmp_path, 80), ports
