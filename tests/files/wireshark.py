"""tshark with the dissector of wireshark/mat.lua, on captures made here."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from mat.address import parse_address
from mat.messages import MAT_PORT, Endpoint
from mat_files.capture import udp_packet, writing

DISSECTOR = Path(__file__).parents[2] / "wireshark" / "mat.lua"
HERE = {4: Endpoint(parse_address("192.0.2.7"), MAT_PORT)}
HERE[6] = Endpoint(parse_address("2001:db8:7::7"), MAT_PORT)
THERE = {4: Endpoint(parse_address("192.0.2.8"), MAT_PORT)}
THERE[6] = Endpoint(parse_address("2001:db8:7::8"), MAT_PORT)

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def tshark(path: Path, *options: str, resolve: bool = False) -> str:
    """What tshark prints of a capture; there is nothing that Lua complains of."""
    numeric = [] if resolve else ["-n"]
    command = ["tshark", *numeric, "-X", f"lua_script:{DISSECTOR}", "-r", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Lua" not in done.stderr, done.stderr
    assert "Lua Error" not in done.stdout
    return done.stdout


def fields(path: Path, names: Sequence[str], *options: str) -> list[dict[str, list[str]]]:
    """The values of these fields, of each packet."""
    wanted = [part for name in names for part in ("-e", name)]
    text = tshark(
        path, *options, "-T", "fields", "-E", "separator=|", "-E", "aggregator=,", *wanted
    )
    rows = (line.split("|") for line in text.splitlines())
    return [
        {name: value.split(",") for name, value in zip(names, row, strict=True) if value}
        for row in rows
    ]


def message_capture(path: Path, datagrams: Iterable[bytes], family: int = 4) -> None:
    """A capture of datagrams between two hosts, a millisecond apart."""
    with writing(path) as writer:
        for number, datagram in enumerate(datagrams):
            packet = udp_packet(HERE[family], THERE[family], datagram)
            writer.packet(number * 10**6, "here", packet, len(packet), outward=True)
