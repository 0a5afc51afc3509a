"""`mat dns` from the command line: what it prints, what it refuses, and with which exit code."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dns.zone
import pytest
from click.testing import CliRunner, Result

from mat.ims_record import ImsRecord, from_rdata, record
from mat_real.commands.dns import dns as command
from mat_real.dns import Responder, Server, format_server
from tests.real.dns_fakes import serving
from tests.real.dns_servers import (
    IPV4_ZONE,
    RECORDS,
    Zones,
    bind,
    both_zones,
    free_port,
    sign,
    zone_text,
)

MAT_DNS: Final = "from mat_real.commands.dns import dns; dns(prog_name='mat dns')"
ROOT: Final = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@contextmanager
def lab(*records: tuple[str, ImsRecord]) -> Iterator[str]:
    """The embedded responder in a thread; yields what `--server` takes."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()
    where: list[Server] = []

    async def body() -> None:
        responder = Responder([IPV4_ZONE, "test"], records, hosts=HOSTS)
        async with serving(responder) as server:
            where.append(server)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(body(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield format_server(where[0])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


HOSTS: Final = [("ims.test", record("192.0.2.7").addresses[0])]


# ---- record ------------------------------------------------------------------------------------


def test_a_record_is_printed_readable_and_for_any_server() -> None:
    result = run("record", "10.1.0.5", "--ims", "192.0.2.1", "--ims", "192.0.2.2")
    assert result.exit_code == 0
    assert result.output == (
        "; IMS record of 10.1.0.5: 10 49628 192.0.2.1 192.0.2.2\n"
        "5.0.1.10.in-addr.arpa. 300 IN TYPE65338 \\# 12 0a01c1dcc0000201c0000202\n"
    )


def test_families_and_a_name_make_a_record_each() -> None:
    result = run(
        *("record", "2001:db8:1::5", "--ims", "192.0.2.1", "--ims", "2001:db8::1"),
        *("--name", "ims.example.", "--port", 7, "--precedence", 3, "--ttl", 60),
    )
    lines = result.output.splitlines()
    assert [line for line in lines if line.startswith(";")] == [
        "; IMS record of 2001:db8:1::5: 3 7 192.0.2.1",
        "; IMS record of 2001:db8:1::5: 3 7 2001:db8::1",
        "; IMS record of 2001:db8:1::5: 3 7 ims.example.",
    ]
    assert all(" 60 IN TYPE65338 \\# " in line for line in lines[1::2])


def test_what_is_printed_is_a_part_of_a_zone_file() -> None:
    result = run("record", "10.1.0.5", "--ims", "192.0.2.1", "--name", "ims.test.")
    zone = dns.zone.from_text(zone_text(IPV4_ZONE) + result.output)
    rdataset = zone.get_rdataset("5.0", "TYPE65338")
    assert rdataset is not None
    found = {from_rdata(rdata.to_wire()) for rdata in rdataset}
    assert found == {record("192.0.2.1"), ImsRecord(10, 49628, name="ims.test.")}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["10.1.0.5"], "Say where the IMS is: --ims ADDRESS, or --name NAME."),
        (["ten", "--ims", "192.0.2.1"], "'ten' is not an address"),
        (["10.1.0.5", "--ims", "one"], "'one' is not an address"),
        (["10.1.0.5", "--name", "ims.test"], "a name ends with a dot"),
        (["10.1.0.5", "--ims", "192.0.2.1", "--port", "0"], "0 is not in the range"),
        (["10.1.0.5", "--ims", "192.0.2.1", "--precedence", "256"], "256 is not in the range"),
        (["10.1.0.5"] + ["--ims", "192.0.2.1"] * 9, "up to 8 addresses"),
    ],
)
def test_a_record_that_cannot_be_is_wrong_usage(arguments: list[str], reason: str) -> None:
    result = run("record", *arguments)
    assert result.exit_code == 2
    assert reason in result.output


# ---- lookup ------------------------------------------------------------------------------------


def test_a_record_that_is_found_is_shown_in_order_with_its_addresses() -> None:
    name, second = ImsRecord(5, 49628, name="ims.test."), record("192.0.2.1", precedence=9)
    with lab(("10.1.0.0/16", second), ("10.1.0.0/16", name)) as server:
        result = run("lookup", "10.1.0.5", "--server", server)
    assert result.exit_code == 0
    assert result.output == (
        "10.1.0.5: 5.0.1.10.in-addr.arpa., TTL 300 s, not authenticated\n"
        "  5 49628 ims.test. → 192.0.2.7\n"
        "  9 49628 192.0.2.1\n"
    )


def test_a_host_without_mat_is_an_error_that_says_so() -> None:
    with lab() as server:
        result = run("lookup", "10.1.0.5", "--server", server)
    assert result.exit_code == 1
    assert result.output == (
        "Error: 10.1.0.5 is not a MAT node: 5.0.1.10.in-addr.arpa. has no IMS record;"
        " not authenticated\n"
    )


def test_a_dns_that_does_not_answer_is_an_error_that_says_who() -> None:
    dead = f"127.0.0.1:{free_port()}"
    with lab() as server:
        result = run("lookup", "10.9.0.5", "--server", server, "--server", dead)
    assert result.exit_code == 1
    assert f"{server} says REFUSED; {dead} cannot be reached" in result.output


def test_authenticity_is_shown_or_its_absence_an_error(tmp_path: Path) -> None:
    signed = sign(tmp_path / "keys", IPV4_ZONE, zone_text(IPV4_ZONE, RECORDS[IPV4_ZONE]))
    anchors = tmp_path / "anchors"
    anchors.write_text("\n".join(signed.digests))
    with bind(tmp_path / "bind", Zones({IPV4_ZONE: signed.text})) as server:
        asked = ("lookup", "10.1.0.5", "--server", format_server(server))
        proved = run(*asked, "--dnssec", "validate", "--trust-anchor", anchors)
        unproved = run(*asked, "--dnssec", "ad")
        absent = run(
            *("lookup", "10.1.0.6", "--server", format_server(server)),
            *("--dnssec", "validate", "--trust-anchor", anchors),
        )
    assert proved.exit_code == 0
    assert "TTL 300 s, validated\n" in proved.output
    assert unproved.exit_code == 1
    assert "the server does not vouch for it (no AD bit)" in unproved.output
    assert absent.exit_code == 1
    assert "10.1.0.6 is not a MAT node" in absent.output
    assert absent.output.endswith("; validated\n")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "reason"),
    [
        (["--server", "ns.test"], 2, "'ns.test': an address is needed"),
        (["--dnssec", "validate"], 2, "--dnssec validate needs --trust-anchor."),
        (["--dnssec", "validate", "--trust-anchor", "/none"], 1, "/none: No such file"),
        (["--dnssec", "maybe"], 2, "'maybe' is not one of"),
    ],
)
def test_what_a_look_up_cannot_begin_with(
    arguments: list[str], exit_code: int, reason: str
) -> None:
    result = run("lookup", "10.1.0.5", *arguments)
    assert result.exit_code == exit_code
    assert reason in result.output


# ---- publish -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """BIND with a key that may update; yields what `--server` takes, and the key's file."""
    directory = tmp_path_factory.mktemp("bind")
    path = directory / "ims.key"
    key = 'key "ims" { algorithm hmac-sha256; secret "c2VjcmV0IHNlY3JldCBzZWNyZXQ="; };\n'
    path.touch(0o600)
    path.write_text(key)
    zones = both_zones()
    for name in ("*", "*.8"):
        zones[IPV4_ZONE] += f"{name} IN TYPE65338 \\# 8 0a01c1dcc0000209\n"
    with bind(directory, Zones(zones, extra="allow-update { key ims; };", top=key)) as at:
        yield format_server(at), path


def test_a_record_is_published_and_what_is_served_is_printed(primary: tuple[str, Path]) -> None:
    server, key = primary
    options = ("--server", server, "--key-file", key)
    result = run("publish", "10.1.0.9", "--ims", "192.0.2.1", "--ttl", 60, *options)
    assert result.exit_code == 0, result.output
    assert result.output == (
        "10.1.0.9 now has: 9.0.1.10.in-addr.arpa. in zone 1.10.in-addr.arpa. at"
        f" {server}, TTL 60 s\n  10 49628 192.0.2.1\n"
    )
    assert run("lookup", "10.1.0.9", "--server", server).exit_code == 0
    result = run("publish", "10.1.0.9", "--delete", *options)
    assert result.exit_code == 0
    assert result.output.startswith("10.1.0.9 has no IMS record any more: 9.0.1.10.in-addr.arpa.")
    assert run("lookup", "10.1.0.9", "--server", server).exit_code == 1


def test_a_record_that_takes_addresses_from_a_wildcard_is_published_with_a_warning(
    primary: tuple[str, Path],
) -> None:
    server, key = primary
    options = ("--server", server, "--key-file", key)
    result = run("publish", "10.1.7.5", "--ims", "192.0.2.1", *options)
    assert result.exit_code == 0
    assert result.stdout.startswith("10.1.7.5 now has: 5.7.1.10.in-addr.arpa. in zone")
    assert result.stderr == (
        "Warning: 7.1.10.in-addr.arpa. exists now, so the wildcard that answered for other home"
        " addresses in 10.1.7.0/24 does so no longer (RFC 4592). Give them records of their own, or"
        " wildcards below this name and each one between it and the record (docs/dns.md).\n"
    )
    assert run("lookup", "10.1.7.6", "--server", server).exit_code == 1
    for home in ("10.1.7.6", "10.1.8.5"):
        result = run("publish", home, "--ims", "192.0.2.1", *options)
        assert (result.exit_code, result.stderr) == (0, "")


def test_after_a_deletion_a_wildcard_may_answer_and_is_named_as_one(
    primary: tuple[str, Path],
) -> None:
    server, key = primary
    options = ("--server", server, "--key-file", key)
    assert run("publish", "10.1.8.9", "--ims", "192.0.2.1", *options).exit_code == 0
    result = run("publish", "10.1.8.9", "--delete", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "10.1.8.9 has no IMS record of its own any more: 9.8.1.10.in-addr.arpa. in zone"
        f" 1.10.in-addr.arpa. at {server}\n"
        "A wildcard answers for it now, TTL 300 s\n"
        "  10 49628 192.0.2.9\n"
    )


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_secret_that_others_can_read_is_used_with_a_warning(
    primary: tuple[str, Path], tmp_path: Path, mode: int
) -> None:
    server, key = primary
    files = {"--key-file": key.read_text(), "--secret-file": "c2VjcmV0IHNlY3JldCBzZWNyZXQ="}
    for option, text in files.items():
        path = tmp_path / "file"
        path.write_text(text)
        path.chmod(mode)
        name = () if option == "--key-file" else ("--key-name", "ims")
        result = run(*("publish", "10.1.0.7", "--delete", "--server", server), *name, option, path)
        assert result.exit_code == 0
        assert result.stderr == (
            f"Warning: {path}: mode {mode:04o} lets other users at the secret; chmod 600 it, or use"
            " a copy with that mode if a name server has to read it.\n"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's file")
@pytest.mark.parametrize("option", ["--key-file", "--secret-file"])
def test_a_secret_that_may_not_be_read_is_an_error_of_our_own(option: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    os.chown(path, 1234, 1234)
    # Root without the right to read everything: another user may not be let in where Python is.
    bare = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    name = () if option == "--key-file" else ("--key-name", "ims")
    with mat_dns("publish", "10.1.0.7", "--delete", *name, option, str(path), wrapper=bare) as p:
        out, err = p.communicate(timeout=60)
    assert (p.returncode, out) == (1, "")
    assert err == f"Error: {path}: Permission denied; name a readable key file\n"


def test_a_key_can_be_given_by_name_and_a_file_with_its_secret(
    primary: tuple[str, Path], tmp_path: Path
) -> None:
    server, _ = primary
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("c2VjcmV0IHNlY3JldCBzZWNyZXQ=\n")
    key = ("--key-name", "ims", "--secret-file", secret)
    result = run("publish", "10.1.0.9", "--ims", "192.0.2.1", "--server", server, *key)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "exit_code", "reason"),
    [
        (["--ims", "192.0.2.1"], 2, "A key is needed: --key-file, or --key-name with"),
        (["--ims", "192.0.2.1", "--key-name", "a"], 2, "A key is needed"),
        (["--key-file", "/none"], 2, "Say where the IMS is"),
        (["--delete", "--ims", "192.0.2.1"], 2, "--delete goes without --ims and --name."),
        (["--delete", "--key-file", "/none"], 1, "/none: No such file or directory"),
    ],
)
def test_what_a_publication_cannot_begin_with(
    arguments: list[str], exit_code: int, reason: str
) -> None:
    result = run("publish", "10.1.0.5", *arguments)
    assert result.exit_code == exit_code
    assert reason in result.output


# ---- serve -------------------------------------------------------------------------------------


@contextmanager
def mat_dns(*arguments: str, wrapper: Sequence[str] = ()) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-c", MAT_DNS, *arguments],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'real'}", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_is_served_from_the_command_line_until_interrupted(number: signal.Signals) -> None:
    with mat_dns(
        *("serve", "--zone", "10.in-addr.arpa", "--zone", "test", "--host", "ims.test=192.0.2.7"),
        *("--record", "10.0.0.0/12=10 49628 ims.test.", "--listen", f"127.0.0.1:{free_port()}"),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        (server,) = re.findall(r"^Serving on (127\.0\.0\.1:\d+), UDP and TCP; Ctrl-C ends\.$", line)
        result = run("lookup", "10.15.255.255", "--server", server)
        assert "10 49628 ims.test. → 192.0.2.7" in result.output
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "exit_code", "reason"),
    [
        ([], 2, "Missing option '--zone'"),
        (["--zone", "test", "--record", "10.1.0.0/16"], 2, "has no '='"),
        (["--zone", "test", "--record", "10.1.0.0/16=1 2 3"], 1, "'3' is not an address"),
        (["--zone", "test", "--record", "10.1.0.0/16=1 2 ::1"], 1, "in none of the zones (test.)"),
        (["--zone", "test", "--host", "a.test=b"], 1, "'b' is not an address"),
        (["--zone", "test", "--listen", "here"], 2, "'here': an address is needed"),
        (["--zone", "test", "--listen", "192.0.2.99:5353"], 1, "192.0.2.99 port 5353: "),
    ],
)
def test_what_cannot_be_served(arguments: list[str], exit_code: int, reason: str) -> None:
    result = run("serve", *arguments)
    assert result.exit_code == exit_code
    assert reason in result.output


# ---- the module --------------------------------------------------------------------------------


def test_importing_the_command_imports_nothing_heavy() -> None:
    script = (
        "import sys, mat_real.commands.dns;"
        "print(sorted({'dns', 'asyncio', 'pydantic', 'mat_real.dns'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'real'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["record", "publish", "lookup", "serve"])
def test_the_help_teaches_with_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"  mat dns {name} " in result.output


def test_the_help_fits_a_terminal() -> None:
    for name in ("", "record", "publish", "lookup", "serve"):
        for line in run(*filter(None, (name, "--help"))).output.splitlines():
            assert len(line) <= 80
