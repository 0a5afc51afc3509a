"""Uplinks as a program: `uplinks_daemon.py HOME DHCP…`; a line for each change, ended by a signal.

What the tests kill, or start without the rights that it needs.
"""

import asyncio
import json
import signal
import sys

import uvloop

from mat.address import parse_address
from mat_real.uplinks import Home, Uplinks, UplinksError
from tests.real.uplinks_lab import texts


async def main(home: str, dhcp: list[str]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    def tell() -> None:
        said = {
            "addresses": texts(uplinks.mobile_addresses(ipv4=True)),
            "problems": uplinks.problems,
        }
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    uplinks = Uplinks([Home(parse_address(home))], tell, dhcp=dhcp)
    uplinks.open()
    tell()
    await ended.wait()
    uplinks.close()


if __name__ == "__main__":
    try:
        uvloop.run(main(sys.argv[1], sys.argv[2:]))
    except UplinksError as error:
        sys.exit(str(error))
