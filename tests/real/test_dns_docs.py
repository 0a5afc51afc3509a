"""What docs/dns.md says works: its commands, its configurations, its figures."""

import re
import shlex
import stat
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import dns.message
import dns.query
import pytest
from click.testing import CliRunner, Result

from mat.address import parse_address
from mat.ims_record import reverse_name
from mat.parameters import DEFAULTS
from mat_real.commands.dns import dns as command
from mat_real.dns import Server, denial, format_server, lookup, validation
from mat_real.dns.config import ResolverConfig
from tests.docs.pages import ROOT, SHELL, blocks
from tests.real.dns_servers import (
    HOST,
    IPV4_ZONE,
    IPV6_HOME,
    IPV6_ZONE,
    RECORDS,
    Zones,
    await_that,
    bind,
    free_port,
    knot,
    nsd,
    require,
    running,
    zone_text,
)

PAGE: Final = (ROOT / "docs/dns.md").read_text()
BLOCKS: Final = [(block.language, block.text) for block in blocks("docs/dns.md")]
COMMANDS: Final = [
    line
    for language, block in BLOCKS
    if language == SHELL
    for line in block.replace("\\\n", "").splitlines()
    if line.startswith("mat dns ")
]
MAIN: Final = "from mat_real.commands.dns import dns; dns(prog_name='mat dns')"
RECORD: Final = RECORDS[IPV4_ZONE].replace("5.0 ", "5.0.1.10.in-addr.arpa. 300 ")


def block(language: str) -> str:
    (found,) = (str(text) for name, text in BLOCKS if name == language)
    return found


def run(line: str) -> Result:
    return CliRunner().invoke(command, shlex.split(line.removeprefix("mat dns ")))


def test_the_record_on_the_page_is_what_the_command_prints() -> None:
    (line,) = (line for line in COMMANDS if line.startswith("mat dns record "))
    assert run(line).output in [text for _, text in BLOCKS]
    assert RECORD in PAGE
    assert RECORD.replace("5.0.1.10", "*.1.10") in PAGE


def publishes(server: Server, directory: Path) -> None:
    """The page's own commands, but for where the server and the key are."""
    path = directory / "ims.key"
    there = f" --server {format_server(server)}"
    put, delete = (line for line in COMMANDS if line.startswith("mat dns publish "))
    for line, expected in ((put, "now has"), (delete, "has no IMS record any more")):
        result = run(line.replace("ims.key", str(path)) + there)
        assert result.exit_code == 0, result.output
        assert expected in result.output
        assert result.stderr == ""


def may_not(server: Server, directory: Path) -> None:
    """The key changes IMS records and nothing else."""
    update = f"server {server[0]} {server[1]}\nzone {IPV4_ZONE}\n"
    update += f"update add 5.0.{IPV4_ZONE}. 300 PTR forged.test.\nsend\n"
    require("nsupdate")
    done = subprocess.run(
        ["nsupdate", "-k", directory / "ims.key"],
        input=update,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    query = dns.message.make_query(f"5.0.{IPV4_ZONE}", "PTR")
    assert not dns.query.udp(query, server[0], port=server[1], timeout=10).answer


def test_bind_takes_updates_as_configured_on_the_page(tmp_path: Path) -> None:
    require("tsig-keygen")
    (making,) = re.findall(r"^.*tsig-keygen .*$", PAGE, re.MULTILINE)
    subprocess.run(making, shell=True, cwd=tmp_path, check=True)
    key = tmp_path / "ims.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    (tmp_path / f"{IPV4_ZONE}.zone").write_text(zone_text(IPV4_ZONE))
    top = block("named")
    for place in ("/etc/bind", "/var/lib/bind"):
        assert place in top
        top = top.replace(place, str(tmp_path))
    with bind(tmp_path, Zones({}, top=top)) as server:
        publishes(server, tmp_path)
        may_not(server, tmp_path)


def test_knot_takes_updates_as_configured_on_the_page(tmp_path: Path) -> None:
    top = block("knot").replace("/var/lib/knot", str(tmp_path))
    secret = re.findall(r"secret: (\S+)", top)[0]
    (tmp_path / f"{IPV4_ZONE}.zone").write_text(zone_text(IPV4_ZONE))
    key = tmp_path / "ims.key"
    key.touch(0o600)
    key.write_text(f'key "ims" {{ algorithm hmac-sha256; secret "{secret}"; }};')
    with knot(tmp_path, Zones({}, top=top)) as server:
        publishes(server, tmp_path)
        may_not(server, tmp_path)


def ims_record_at(name: str, server: Server) -> bool:
    answer = dns.message.make_query(name, "TYPE65338")
    return bool(dns.query.udp(answer, server[0], port=server[1], timeout=10).answer)


START: Final = {"bind": bind, "nsd": nsd, "knot": knot}
WILDCARD: Final = RECORD.replace("5.0.1.10", "*.1.10")


@pytest.mark.parametrize("kind", START)
def test_a_wildcard_and_records_beside_it_are_served_as_the_page_says(
    kind: str, tmp_path: Path
) -> None:
    """With real servers, of which each has an implementation of wildcards of its own."""
    assert WILDCARD in PAGE
    six = RECORDS[IPV6_ZONE]
    lines = [WILDCARD, "5.9 PTR single.test.", WILDCARD.replace("*.", "*.8."), "5.8 PTR a.test."]
    zones = {
        IPV4_ZONE: zone_text(IPV4_ZONE, *lines),
        IPV6_ZONE: zone_text(IPV6_ZONE, six, "*" + six[six.index(" ") :]),
    }
    taken, kept = "2001:db8:1:fff::1", "2001:db8:1:1000::1"
    with START[kind](tmp_path, Zones(zones)) as server:
        served = {
            home: ims_record_at(reverse_name(parse_address(home)), server)
            for home in (
                *("10.1.9.5", "10.1.9.6", "10.1.7.5", "10.1.8.5", "10.1.8.6"),
                *(taken, kept, IPV6_HOME),
            )
        }
    wanted = {"10.1.7.5", "10.1.8.6", kept, IPV6_HOME}
    assert {home for home, answered in served.items() if answered} == wanted
    assert ip_network("2001:db8:1::/52").supernet(4) == ip_network("2001:db8:1::/48")
    assert ip_address(taken) in ip_network("2001:db8:1::/52")


def test_a_prefix_of_the_laboratorys_server_is_no_wildcard(tmp_path: Path) -> None:
    port = free_port()
    serve: list[str | Path] = [sys.executable, "-c", MAIN, "serve", "--zone", IPV4_ZONE]
    for prefix, last in (("10.1.0.0/16", 1), ("10.1.9.5", 2)):
        assert f"`--record {prefix}=…`" in PAGE
        serve += ["--record", f"{prefix}=10 49628 192.0.2.{last}"]
    with running(tmp_path, port, [*serve, "--listen", f"{HOST}:{port}"]) as server:
        for home, last in (("10.1.9.5", 2), ("10.1.9.6", 1), ("10.1.7.5", 1)):
            result = run(f"mat dns lookup {home} --server {format_server(server)}")
            assert f"10 49628 192.0.2.{last}\n" in result.output
        assert not ims_record_at(f"9.{IPV4_ZONE}", server)


SIGNING: Final = {
    "bind": (bind, "dnssec-policy default; inline-signing yes;"),
    "knot": (knot, "    dnssec-signing: on\n"),
}


@pytest.mark.parametrize("kind", SIGNING)
def test_a_zone_that_the_server_signs_is_validated_with_its_keys(kind: str, tmp_path: Path) -> None:
    start, extra = SIGNING[kind]
    assert extra.split(";")[0].strip() in PAGE
    zones = Zones({IPV4_ZONE: zone_text(IPV4_ZONE, RECORDS[IPV4_ZONE])}, extra=extra)
    (dig,) = re.findall(r"^(dig .*) > anchors$", PAGE, re.MULTILINE)
    (line,) = (line for line in COMMANDS if "--trust-anchor anchors" in line)
    require("dig", "dnssec-dsfromkey")
    with start(tmp_path, zones) as server:
        wait_for_keys(server)
        dig = dig.replace("@192.0.2.53", f"@{server[0]} -p {server[1]}")
        done = subprocess.run(dig, shell=True, capture_output=True, text=True, check=True)
        (tmp_path / "anchors").write_text(done.stdout)
        line = line.replace("192.0.2.53", format_server(server))
        result = run(line.replace(" anchors", f" {tmp_path / 'anchors'}"))
    assert result.exit_code == 0, result.output
    assert ", validated\n" in result.output


def wait_for_keys(server: Server) -> None:
    """Until the server has signed its zone, which it does after it began to serve it."""

    def signed() -> bool:
        query = dns.message.make_query(f"5.0.{IPV4_ZONE}", "TYPE65338", want_dnssec=True)
        answer = dns.query.udp(query, server[0], port=server[1], timeout=10)
        return len(answer.answer) == 2

    await_that(signed, "signing")


def test_unbound_asks_the_laboratorys_server_as_configured_on_the_page(tmp_path: Path) -> None:
    """Ports apart: those of the page may be taken here."""
    (line,) = (
        line for line in COMMANDS if line.startswith("mat dns serve ") and "--listen" not in line
    )
    require("unbound")
    lab_port, port = free_port(), free_port()
    configuration = block("unbound").replace("@5353", f"@{lab_port}")
    (tmp_path / "unbound.conf").write_text(f"""{configuration}
server:
  interface: {HOST}@{port}
  directory: "{tmp_path}"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
""")
    serve: list[str | Path] = [sys.executable, "-c", MAIN]
    serve += [*shlex.split(line)[2:], "--listen", f"{HOST}:{lab_port}"]
    unbound: list[str | Path] = ["unbound", "-d", "-c", tmp_path / "unbound.conf"]
    (tmp_path / "lab").mkdir()
    with running(tmp_path / "lab", lab_port, serve), running(tmp_path, port, unbound) as server:
        result = run(f"mat dns lookup 10.1.0.5 --server {format_server(server)}")
    assert result.exit_code == 0, result.output
    assert "10 49628 192.0.2.1" in result.output


def test_figures_on_the_page_are_those_of_the_code() -> None:
    config = ResolverConfig()
    for text in (
        f"{lookup.MAX_SERVERS} at most",
        f"from {config.minimum_ttl:g} s to a day",
        f"{config.negative_ttl:g} s at most",
        f"{config.concurrency} look-ups run at a time",
        f"more than {denial.MAX_ITERATIONS} iterations",
        f"more than {validation.MAX_KEYS} keys in a zone, {validation.MAX_SAME_TAG} with the same",
        f"{validation.MAX_SIGNATURES} signatures over one set",
        f"{validation.MAX_PROOFS} proofs in one answer",
    ):
        assert text in PAGE, text
    assert config.maximum_ttl == 86_400
    assert DEFAULTS.failure_time == 1
