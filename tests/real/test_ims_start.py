"""What keeps `mat ims serve` from starting is said in a line, and what it mends by itself."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mat_real.commands.ims import DEFAULT_CONFIG
from tests.real.ims_server import (
    MAIN,
    configuration,
    free_port,
    key,
    running,
    serve,
    wait_until,
    write_keys,
)

MN, CN = key(1, "10.1.0.1"), key(2, "10.1.0.2")
KEYS = (MN, CN)


def test_what_keeps_it_from_starting_is_said_in_a_line(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", KEYS)
    port = free_port()
    (tmp_path / "precious").write_text("what must not be lost")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        cases: list[tuple[dict[str, dict[str, str]], str]] = [
            ({"ims": {"zones": '["10.1.0.1/16"]'}}, 'ims.toml:2: ims.zones.0: is "10.1.0.1/16"'),
            ({"ims": {"wrokers": "2"}}, "ims.wrokers: unknown key; did you mean workers?"),
            ({"ims": {"keys": '"nokeys"'}}, "nokeys"),
            ({"ims": {"listen": '["192.0.2.1:49628"]'}}, "cannot listen on [192.0.2.1]:49628"),
            ({"store": {"path": '"no/such/place"'}}, "see that its directory exists"),
            ({"ims": {"control": '"no/such/place"'}}, "set ims.control to a short path"),
            ({"ims": {"control": f'"{"x" * 108}"'}}, "path too long"),
            ({"store": {"kind": '"redis"'}}, "store.url: is missing"),
            ({"store": {"kind": '"memory"'}, "ims": {"workers": "2"}}, "write 1"),
            (
                {"ims": {"listen": f'["[::]:{port}", "127.0.0.1:{port}"]'}},
                "all addresses and others",
            ),
            ({"ims": {"control": '"precious"'}}, "set ims.control to a path of its own"),
            ({"metrics": {"listen": '"192.0.2.1:1"'}}, "cannot serve metrics on [192.0.2.1]:1"),
            ({"protocol": {"maximum_lifetimes": "2"}}, "no such protocol parameter"),
            ({"ims": {"receive_buffer": "999999999999"}}, "must be 1073741824 or less"),
            ({"store": {"kind": '"redis"', "url": '"redis://127.0.0.1:1"'}}, "cannot begin"),
            (
                {
                    "responder": {
                        "listen": f'"127.0.0.1:{taken.getsockname()[1]}"',
                        "zones": '["1.10.in-addr.arpa"]',
                        "records": "{}",
                    },
                },
                "responder.listen: ",
            ),
        ]
        for tables, expected in cases:
            tried = serve(configuration(tmp_path, port, tables))
            assert tried.returncode == 1, tables
            assert expected in tried.stderr, (tables, tried.stderr)
            assert "Traceback" not in tried.stderr
    assert (tmp_path / "precious").read_text() == "what must not be lost"


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"ims": {"control": '"no/such/place"'}}, "set ims.control to a short path"),
        ({"ims": {"control": '"keys"'}}, "set ims.control to a path of its own"),
        ({"ims": {"control": f'"{"x" * 108}"'}}, "is longer than 107 bytes"),
        ({"store": {"path": '"no/such/place"'}}, "see that the directory exists"),
        (
            {
                "responder": {
                    "listen": '"127.0.0.1:5353"',
                    "zones": '["1.10.in-addr.arpa"]',
                    "records": '{"10.1.0.0/16" = "49628 127.0.0.1"}',
                }
            },
            "responder.records",
        ),
    ],
)
def test_check_refuses_what_would_not_start(
    tmp_path: Path, tables: dict[str, dict[str, str]], expected: str
) -> None:
    write_keys(tmp_path / "keys", KEYS)
    tried = serve(configuration(tmp_path, free_port(), tables), "--check")
    assert tried.returncode == 1
    assert expected in tried.stderr


def test_check_warns_of_keys_with_which_nobody_can_register(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", [MN, key(9, "10.99.0.1")])
    tried = serve(configuration(tmp_path, free_port()), "--check")
    assert tried.returncode == 0
    assert "the keys of 1 homes are for none of ims.zones, as that of 10.99.0.1" in tried.stderr


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"zones": '["10.1.0.5/16"]'}, "ims.zones.0"),
        ({"listen": '"127.0.0.1"'}, 'ims.listen: is "127.0.0.1"; must be an array\n'),
    ],
)
def test_one_mistake_is_one_line(tmp_path: Path, table: dict[str, str], line: str) -> None:
    tried = serve(configuration(tmp_path, free_port(), {"ims": table}), "--check")
    assert line in tried.stderr
    assert tried.stderr.count("ims.toml:") == 1


def test_without_a_configuration_it_says_how_to_begin() -> None:
    if DEFAULT_CONFIG.exists():
        pytest.skip(f"there is a {DEFAULT_CONFIG} on this machine")
    tried = subprocess.run(
        [sys.executable, "-c", MAIN, "ims", "serve"], capture_output=True, text=True, check=False
    )
    assert tried.returncode == 2
    assert "begin with: mat ims serve --example" in tried.stderr


@pytest.mark.parametrize("command", [["ims", "serve", "--check"], ["dns", "record", "10.1.0.1"]])
def test_an_extra_that_is_not_installed_is_named(tmp_path: Path, command: list[str]) -> None:
    config = configuration(tmp_path, free_port())
    more = ["--config", str(config)] if command[0] == "ims" else ["--ims", "192.0.2.1"]
    tried = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['dns'] = None; {MAIN}", *command, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 1
    assert "needs the Python package 'dns'" in tried.stderr
    assert "mat-mobility[ims]" in tried.stderr
    assert "Traceback" not in tried.stderr


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_ctrl_c_at_any_moment_of_the_start_ends_it_without_a_traceback(
    tmp_path: Path, delay: float
) -> None:
    write_keys(tmp_path / "keys", KEYS)
    config = configuration(tmp_path, free_port(), {"ims": {"workers": "4"}})
    server = subprocess.Popen(
        [sys.executable, "-c", MAIN, "ims", "serve", "--config", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # What comes before is the interpreter's start, and no server yet.
    wait_until(lambda: signal.SIGHUP in blocked_signals(server.pid))
    time.sleep(delay)
    os.killpg(server.pid, signal.SIGINT)
    _, said = server.communicate(timeout=60)
    assert server.returncode in {0, 130}, said
    assert "Traceback" not in said


def blocked_signals(pid: int) -> set[int]:
    """The signals that a process has the kernel keep for it."""
    text = Path(f"/proc/{pid}/status").read_text()
    mask = int(re.findall(r"SigBlk:\s+([0-9a-f]+)", text)[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@pytest.mark.parametrize("other", ["directory", "file"])
def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, other: str) -> None:
    write_keys(tmp_path / "keys", KEYS)
    place = tmp_path / "ims.store"
    if other == "directory":
        place.mkdir(mode=0o755)
    else:
        place.write_text("what must not be lost")
        place.chmod(0o644)
    before = place.stat().st_mode
    config = configuration(tmp_path, free_port())
    for more in ([], ["--check"]):
        tried = serve(config, *more)
        assert tried.returncode == 1
        assert str(place) in tried.stderr
        assert place.stat().st_mode == before


def test_a_store_that_others_can_read_is_made_private(tmp_path: Path) -> None:
    with running(tmp_path, KEYS):
        pass
    store = tmp_path / "ims.store"
    store.chmod(0o644)
    with running(tmp_path, KEYS) as server:
        assert store.stat().st_mode & 0o777 == 0o600
        assert "could be read by others" in server.log()


def test_check_says_that_all_is_fine(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", KEYS)
    tried = serve(configuration(tmp_path, free_port()), "--check")
    assert (tried.returncode, tried.stdout) == (0, "Fine: 2 zones, 2 keys.\n")


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    example = subprocess.run(
        [sys.executable, "-c", MAIN, "ims", "serve", "--example"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "ims.toml").write_text(example)
    write_keys(tmp_path / "keys", KEYS)
    tried = serve(tmp_path / "ims.toml", "--check", "--set", 'ims.keys="keys"')
    assert (tried.returncode, tried.stdout) == (0, "Fine: 1 zones, 2 keys.\n")
