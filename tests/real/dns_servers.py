"""DNS servers of one's own on loopback: BIND, NSD, Knot and Unbound, each ended by its pid."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import dns.rrset
import dns.zone
import pytest

from mat_real.dns import Server

BOUND = 30.0
"""Seconds after which waiting for a server is a failure."""
HOST = "127.0.0.1"

IPV4_ZONE = "1.10.in-addr.arpa"
IPV6_ZONE = "1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
IPV4_HOME, IPV6_HOME = "10.1.0.5", "2001:db8:1::5"
RECORDS = {
    IPV4_ZONE: r"5.0 IN TYPE65338 \# 12 0a01c1dcc0000201c0000202",
    IPV6_ZONE: "5" + ".0" * 19 + r" IN TYPE65338 \# 20 0a02c1dc20010db8000000000000000000000001",
}
"""The IMS records of the two home addresses, as lines of their zones: 192.0.2.1 and 192.0.2.2 for
the one, 2001:db8::1 for the other."""


def require(*programs: str) -> None:
    """Skip the test where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def free_port() -> int:
    """A port that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((HOST, port))
            except OSError:
                continue
            return port


def zone_text(apex: str, *lines: str, negative_ttl: int = 60) -> str:
    """A zone file."""
    head = f"$ORIGIN {apex}.\n$TTL 300\n"
    authority = f"@ IN SOA localhost. hostmaster.localhost. 1 3600 600 86400 {negative_ttl}\n"
    return head + authority + "@ IN NS localhost.\n" + "".join(f"{line}\n" for line in lines)


def both_zones() -> dict[str, str]:
    """The two reverse zones with a record each."""
    return {apex: zone_text(apex, line) for apex, line in RECORDS.items()}


@dataclass
class Zones:
    """What an authoritative server is to serve, and what its configuration says besides.

    `extra` goes into each zone's part of the configuration, `top` beside the zones.
    """

    texts: Mapping[str, str]
    extra: str = ""
    top: str = ""
    files: dict[str, Path] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for apex, text in self.texts.items():
            self.files[apex] = directory / f"{apex.replace('/', '-')}.zone"
            self.files[apex].write_text(text)


@dataclass(frozen=True)
class Signed:
    """A signed zone: its text, and the DS records that its parent, or a trust anchor, needs."""

    text: str
    digests: tuple[str, ...]


def sign(directory: Path, apex: str, text: str, *options: str) -> Signed:
    """Sign a zone; `options` go to dnssec-signzone (`-3 -` for NSEC3, `-A` for opt-out)."""
    require("dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / apex).write_text(text)
    for flags in ([], ["-f", "KSK"]):
        _call(directory, "dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", *flags, apex)
    _call(directory, "dnssec-signzone", "-q", "-S", "-f", "signed", *options, "-o", apex, apex)
    return Signed((directory / "signed").read_text(), digests(directory, apex, "SHA-256"))


def digests(directory: Path, apex: str, algorithm: str) -> tuple[str, ...]:
    """The DS records of a zone that was signed in this directory."""
    command = ("dnssec-dsfromkey", "-a", algorithm, "-f", "signed", apex)
    return tuple(_call(directory, *command).splitlines())


def _call(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def denials(text: str, apex: str) -> list[dns.rrset.RRset]:
    """All NSEC and NSEC3 records of a signed zone, with their signatures."""
    zone = dns.zone.from_text(text, apex, relativize=False)
    return [
        dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset))
        for name, rdataset in zone.iterate_rdatasets()
        if (rdataset.covers or rdataset.rdtype) in (dns.rdatatype.NSEC, dns.rdatatype.NSEC3)
    ]


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so. Raises `TimeoutError`."""
    end = time.monotonic() + BOUND
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {BOUND} s")
        time.sleep(0.02)


@contextmanager
def running(directory: Path, port: int, command: Sequence[str | Path]) -> Iterator[Server]:
    """A server process, from when it answers on its port of loopback; its output goes to a log."""
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        await_that(lambda: process.poll() is not None or _answers(port), f"start of {command[0]}")
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]}: {(directory / 'log').read_text()}")
        yield HOST, port
    finally:
        process.terminate()
        try:
            process.wait(BOUND)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    query = dns.message.make_query("version.bind.", "TXT", "CH")
    try:
        dns.query.udp(query, HOST, timeout=0.2, port=port)
    except (OSError, dns.exception.DNSException):
        return False
    return True


@contextmanager
def bind(directory: Path, zones: Zones) -> Iterator[Server]:
    """BIND's named, authoritative."""
    require("named")
    port = free_port()
    zones.write(directory)
    parts = [
        f'zone "{apex}" {{ type primary; file "{path}"; {zones.extra} }};\n'
        for apex, path in zones.files.items()
    ]
    (directory / "named.conf").write_text(
        f"""options {{
            directory "{directory}";
            listen-on port {port} {{ {HOST}; }};
            listen-on-v6 {{ none; }};
            pid-file none;
            session-keyfile none;
            lock-file none;
            recursion no;
            dnssec-validation no;
            notify no;
            max-cache-size 8M;
        }};
        controls {{ }};
        {zones.top}
        """
        + "".join(parts)
    )
    command: list[str | Path] = ["named", "-g", "-n", "1", "-c", directory / "named.conf"]
    with running(directory, port, command) as server:
        yield server


@contextmanager
def nsd(directory: Path, zones: Zones) -> Iterator[Server]:
    """NSD."""
    require("nsd")
    port = free_port()
    zones.write(directory)
    parts = [f'zone:\n  name: "{apex}"\n  zonefile: "{p}"\n' for apex, p in zones.files.items()]
    (directory / "nsd.conf").write_text(
        f"""server:
  ip-address: {HOST}@{port}
  server-count: 1
  username: ""
  chroot: ""
  pidfile: ""
  database: ""
  zonelistfile: "{directory}/zone.list"
  xfrdfile: "{directory}/xfrd.state"
  xfrdir: "{directory}"
  zonesdir: "{directory}"
remote-control:
  control-enable: no
"""
        + "".join(parts)
    )
    with running(directory, port, ["nsd", "-d", "-c", directory / "nsd.conf"]) as server:
        yield server


@contextmanager
def knot(directory: Path, zones: Zones) -> Iterator[Server]:
    """Knot DNS."""
    require("knotd")
    port = free_port()
    zones.write(directory)
    (directory / "db").mkdir()
    parts = [f"  - domain: {a}\n    file: {p}\n{zones.extra}" for a, p in zones.files.items()]
    (directory / "knot.conf").write_text(
        f"""server:
  rundir: {directory}
  listen: {HOST}@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: info
database:
  storage: {directory}/db
{zones.top}
zone:
"""
        + "".join(parts)
    )
    with running(directory, port, ["knotd", "-c", directory / "knot.conf"]) as server:
        yield server


@contextmanager
def unbound(
    directory: Path, stubs: Mapping[str, Server], *, anchors: Sequence[str] = ()
) -> Iterator[Server]:
    """Unbound, recursive: it knows where the zones in `stubs` are, and asks nobody else.

    With `anchors`, it validates.
    """
    require("unbound")
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    # Whatever it would ask the root servers goes to a port that refuses.
    places = {".": (HOST, 1), **stubs}
    parts = [
        f'stub-zone:\n  name: "{apex}"\n  stub-addr: {address}@{at}\n'
        for apex, (address, at) in places.items()
    ]
    trust = "".join(f'  trust-anchor: "{anchor}"\n' for anchor in anchors)
    (directory / "unbound.conf").write_text(
        f"""server:
  interface: {HOST}@{port}
  directory: "{directory}"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  num-threads: 1
  msg-cache-size: 1m
  rrset-cache-size: 1m
  do-not-query-localhost: no
  do-ip6: no
  module-config: "{"validator iterator" if anchors else "iterator"}"
  local-zone: "10.in-addr.arpa." nodefault
  local-zone: "8.b.d.0.1.0.0.2.ip6.arpa." nodefault
  local-zone: "test." nodefault
{trust}remote-control:
  control-enable: no
"""
        + "".join(parts)
    )
    command: list[str | Path] = ["unbound", "-d", "-c", directory / "unbound.conf"]
    with running(directory, port, command) as server:
        yield server
