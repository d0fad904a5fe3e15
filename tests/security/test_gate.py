"""The ssh gate of a whole server (threat row 8); its grammar and its keys are in tests/git/test_gate.py."""

from __future__ import annotations

from lab.host import Host

# What an older version left.
NODELAY = "/etc/systemd/system/shipit-ssh-nodelay.service"
OURS = "/etc/ssh/sshd_config.d/shipit.conf"


def test_nothing_of_sshd_is_ours_but_the_logins_of_shipit_and_an_upgrade_gives_back_the_rest(host: Host) -> None:
    others = "sshd -T -C user=root,host=localhost,addr=127.0.0.1 | sort"
    mine = host.sh(others).out
    ours = host.read(OURS)
    host.sh(f"rm {OURS}")
    assert host.sh(others).out == mine, "somebody else's login, or all of sshd, is set by shipit"
    host.write(OURS, f"MaxStartups 100:30:200\n{ours}")
    host.write(NODELAY, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n")
    host.sh("systemctl daemon-reload; systemctl start shipit-ssh-nodelay")
    host.install()
    assert host.read(OURS) == ours and host.sh(others).out == mine
    assert not host.exists(NODELAY)
    assert "shipit-ssh-nodelay" not in host.sh("systemctl list-units --all --plain 'shipit-*'").out
    assert host.failed_units() == []
