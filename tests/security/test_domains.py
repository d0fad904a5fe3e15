"""A key for one app gets that app's names and no other (threat row 47)."""

from __future__ import annotations

from collections.abc import Callable

from host.apps import asked, build, files, pushed, say
from lab.client import Client
from lab.host import Host

SETTINGS = "/etc/shipit/shipit.yml"


def wants(*names: str) -> str:
    return f"domains: {list(names)}\n"


def test_a_key_for_one_app_takes_no_name_that_no_admin_has_approved(
    laptop: Client, shared_host: Host, client_of: Callable[..., Client]
) -> None:
    domain, eve = laptop.domain(), client_of(shared_host, "eve")
    pushed(laptop, "victim", "victim")
    assert say(laptop, "domains:add", "victim", "*.victim.example").code == 0
    assert say(laptop, "ssh-keys:add", "eve", "--app", "evil", input=eve.public_key + "\n").code == 0
    assert say(laptop, "apps:create", "evil").code == 0
    repo = eve.repo("evil", files("evil"))
    assert repo.push().ok
    server = shared_host.sh("uname -n").out.strip()
    hers = ("bank.example", f"*.{domain}", domain, "localhost", shared_host.ip, server, f"later.{domain}",
            "login.victim.example", f"victim.{domain}")  # fmt: skip
    for name in hers:
        repo.commit({"shipit.yml": wants(name)})
        refused = repo.push()
        assert refused.code != 0, f"eve took {name}"
        assert f" domains:add evil {name}" in refused.remote, str(refused)
        assert laptop.get("evil", host=name).body != "evil", name
    assert asked(laptop, "domains:list", "evil")["domains"] == [f"evil.{domain}"]

    # A pattern is for names of the app's own, whatever it covers.
    before = shared_host.read(SETTINGS)
    shared_host.write(SETTINGS, before + f'allow_domains: {{evil: "*.evil.example *.{domain} *.victim.example"}}\n')
    for name in hers[1:]:
        repo.commit({"shipit.yml": wants(name)})
        assert repo.push().code != 0, f"eve took {name} by a pattern"
    repo.commit({"shipit.yml": wants("www.evil.example")})
    assert repo.push().ok
    shared_host.write(SETTINGS, before)
    assert laptop.get("evil", host="www.evil.example").body == "evil"
    assert laptop.get("evil").body == "evil", "the default name stays"


def test_a_name_is_claimed_by_the_switch_and_free_again_with_its_line(laptop: Client, shared_host: Host) -> None:
    first, second = pushed(laptop, "first", "first"), pushed(laptop, "second", "second")
    first.commit({"shipit.yml": wants("shop.example") + build("exit 1")})
    assert first.push().code != 0
    assert asked(laptop, "domains:list", "first")["domains"] == [f"first.{laptop.domain()}"], "a failed build claims"
    second.commit({"shipit.yml": wants("shop.example")})
    assert second.push().ok, "who failed to build has the name"
    assert laptop.get("second", host="shop.example").body == "second"
    first.commit({"shipit.yml": wants("shop.example")})
    refused = first.push()
    assert refused.code != 0 and "belongs to second" in refused.remote, str(refused)
    second.commit({"shipit.yml": ""})
    assert second.push().ok
    assert laptop.get("second", host="shop.example").status == 404
    first.commit({"mark": "first again\n"})
    assert first.push().ok, "the name is not free although its line is gone"
    assert laptop.get("first", host="shop.example").body == "first again"
    # What was live before comes back in any case, without the name.
    back = say(laptop, "rollback", "second", "v2")
    assert back.code == 0 and "does not answer at shop.example" in back.out + back.err, str(back)
    assert laptop.get("first", host="shop.example").body == "first again"
    assert say(laptop, "domains:remove", "first", "shop.example").code == 0
    assert laptop.get("first", host="shop.example").status == 404
    assert laptop.get("first").body == "first again"


def test_the_default_name_is_nobody_elses_and_stays_until_it_is_removed(laptop: Client) -> None:
    domain = laptop.domain()
    pushed(laptop, "named", "named")
    assert say(laptop, "domains:add", "named", "www.named.example", f"taken.{domain}").code == 0
    assert laptop.get("named").body == "named", "the first domain took the default name away"
    refused = laptop.repo("taken", files("taken")).push()
    assert refused.code != 0 and "belongs to named" in str(refused), str(refused)
    assert say(laptop, "apps:exists", "taken").code == 1
    assert say(laptop, "domains:remove", "named", f"named.{domain}").code == 0
    assert laptop.get("named").status == 404
    only = say(laptop, "domains:remove", "named", "www.named.example", f"taken.{domain}")
    assert only.code == 0 and laptop.get("named").body == "named", "an app has a name at all times"
    assert say(laptop, "domains:remove", "named", f"named.{domain}").code == 2
