"""A node on this host, put together: uplinks, dataplane, DNS, signalling, control socket."""

import asyncio
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final, final

import uvloop

from mat import __version__
from mat.address import Address, format_address, is_ipv4, parse_address
from mat.mapping_table import Servers
from mat.messages import EXACT, MAT_PORT, Endpoint
from mat.node import MobileNode
from mat_real.control import listen
from mat_real.datagrams import DatagramSocket, bind
from mat_real.dataplane import Consumer, Dataplane, Mode
from mat_real.dataplane.plane import NetfilterDataplane
from mat_real.dns import DnsError, Resolver, system_servers
from mat_real.dns.config import DNS_PORT
from mat_real.dns.config import Server as DnsServer
from mat_real.logs import set_up
from mat_real.node.config import Configuration
from mat_real.node.daemon import Daemon, boottime
from mat_real.node.probing import PathProber
from mat_real.node.registering import RegistrationWatch
from mat_real.node.status import home_snapshot
from mat_real.notify import notify
from mat_real.uplinks import Home, MobileAddress, Uplinks

_NOWHERE: Final[DnsServer] = ("127.0.0.1", DNS_PORT)
"""Whom to ask before there is a name server: nobody answers there, or a local one does."""

LOOK: Final = 2.0
"""Seconds between two looks at what nobody tells of: registrations, the kernel's settings."""
BROKEN: Final = 70
"""Exit code after something that nobody expected."""

_IPV6_TRANSPARENT: Final = 75
"""Of linux/in6.h: a socket may send from addresses that no interface has, of IPv4 as well."""

_log = logging.getLogger("mat.node")


class NodeError(Exception):
    """The node cannot start; says why and how to mend it."""


def run(configuration: Configuration) -> None:
    """Be a node until told to stop (SIGTERM, SIGINT).

    Raises `NodeError`, `UplinksError`, `DataplaneError`, `ControlError` and
    `mat_files.errors.InputError` if it cannot start.
    """
    log = configuration.config.log
    set_up(log.level, log.format)
    uvloop.run(_run(configuration))


async def _run(configuration: Configuration) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_die)
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    async with AsyncExitStack() as stack:
        node = await _Node.started(configuration, stack)
        node.announce()
        await stop.wait()
        notify("STOPPING=1")


def _die(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """End at once over what nobody expected, as though killed.

    A daemon that went on would be in nobody knows which state; in the kernel connections go on, and
    the successor takes them over.
    """
    error = context.get("exception")
    found = error if isinstance(error, BaseException) else None
    _log.critical("the node ends: %s", context.get("message"), exc_info=found)
    logging.shutdown()
    os._exit(BROKEN)


@final
class _Node:
    """Everything that makes up the node, and how it hangs together."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._config = configuration.config
        self._keys = configuration.own_keys()
        self._begun = boottime()
        self._preferred = ""
        """Interface that was last asked for by `rehome`."""
        node = self._config.node
        homes = [Home(key.home_address, key.prefix_length) for key in self._keys]
        self._uplinks = Uplinks(
            homes,
            self._changed,
            interfaces=node.interfaces,
            dhcp=node.dhcp,
            memory=configuration.beside(node.control).with_suffix(".reverse-path"),
        )
        self._machines: dict[bool, MobileNode] = {}
        self._probers: dict[bool, PathProber] = {}
        self._asked: tuple[DnsServer, ...] = ()
        self._asked_from: tuple[str, ...] = ()
        self._problems: tuple[str, ...] = ()

    @classmethod
    async def started(cls, configuration: Configuration, stack: AsyncExitStack) -> "_Node":
        """The node, serving, until the stack ends."""
        node = cls(configuration)
        await node._start(stack)
        return node

    async def _start(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        signalling = DatagramSocket(self._bound())
        stack.callback(signalling.close)
        control = self._configuration.beside(self._config.node.control)
        server = await listen(control, self._answer, "node.control")
        stack.callback(control.unlink, missing_ok=True)
        stack.callback(server.close)
        self._uplinks.open()
        stack.callback(self._uplinks.close)
        self._asked = self._name_servers()
        resolver = replace(self._config.dns.resolver, servers=self._asked)
        self._resolver = Resolver(resolver, clock=boottime)
        stack.push_async_callback(self._resolver.close)
        own = self._own_servers()
        for key in self._keys:
            self._machines[is_ipv4(key.home_address)] = MobileNode(
                key,
                random.SystemRandom(),
                parameters=self._config.parameters,
                servers=own,
                wall_clock=time.time() - boottime(),
            )
        self._daemon = Daemon(
            self._machines,
            loop=loop,
            signalling=signalling,
            dataplane=self._dataplane,
            resolver=self._resolver,
        )
        stack.callback(self._daemon.end)
        for ipv4, machine in self._machines.items():
            prober = PathProber(
                loop,
                machine.home_address,
                partial(_servers_of, machine),
                self._changed,
                partial(self._daemon.traffic, ipv4=ipv4),
            )
            stack.callback(prober.close)
            self._probers[ipv4] = prober
        self._registrations = RegistrationWatch(self._keys, self._machines)
        self._daemon.begin()
        self._changed()
        self._look_now_and_then()
        stack.callback(self._look_no_more)

    def _bound(self) -> Any:
        try:
            bound = bind(port=MAT_PORT)
        except OSError as error:
            what = f"cannot listen on UDP port {MAT_PORT} ({error.strerror})"
            mend = "end the other node or mapping server of this host, or give that an address"
            raise NodeError(f"{what}; {mend} of its own (ims.listen)") from error
        if any(key.prefix_length != EXACT for key in self._keys):
            # A mobile router answers for the hosts behind it, from the address that was asked.
            bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        return bound

    def _dataplane(self, consumer: Consumer) -> Dataplane:
        node = self._config.node
        return NetfilterDataplane(consumer, Mode(node.dataplane), queue=node.queue)

    def _own_servers(self) -> Servers:
        return tuple(Endpoint(address, port) for address, port in self._config.node.ims)

    def announce(self) -> None:
        """Say in the log, and to systemd, that the node serves."""
        homes = " ".join(format_address(key.home_address) for key in self._keys)
        _log.info("running", extra={"homes": homes, "dataplane": self._config.node.dataplane})
        notify("READY=1")

    # ---- the uplinks ---------------------------------------------------------------------------

    def _changed(self) -> None:
        """The host is connected in another way now."""
        if not hasattr(self, "_daemon"):
            return
        self._ask_nearby()
        for ipv4, prober in self._probers.items():
            prober.watch(moa.address for moa in self._uplinks.mobile_addresses(ipv4=ipv4))
        self._daemon.uplinks_changed(self._moas(ipv4=True), self._moas(ipv4=False))
        self._look_for_problems()
        _log.info(
            "uplinks",
            extra={
                "addresses": " ".join(
                    f"{moa.interface}={format_address(moa.address)}" for moa in self._all_moas()
                )
                or "none"
            },
        )

    def _look_now_and_then(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(LOOK, self._look_now_and_then)
        self._look_for_problems()

    def _look_no_more(self) -> None:
        self._looking.cancel()

    def _look_for_problems(self) -> None:
        """Say in the log what was not there before."""
        before, self._problems = (
            self._problems,
            (
                *self._uplinks.problems,
                *self._uplinks.lacks(),
                *self._registrations.problems(boottime(), self._daemon.events),
            ),
        )
        for problem in self._problems:
            if problem not in before:
                _log.error("%s", problem)

    def _moas(self, *, ipv4: bool) -> list[MobileAddress]:
        found = self._uplinks.mobile_addresses(ipv4=ipv4)
        if ipv4 in self._probers:
            usable = self._probers[ipv4].usable([moa.address for moa in found])
            found = tuple(moa for moa in found if moa.address in usable)
        return sorted(found, key=lambda moa: moa.interface != self._preferred)

    def _all_moas(self) -> list[MobileAddress]:
        return self._moas(ipv4=True) + self._moas(ipv4=False)

    def _ask_nearby(self) -> None:
        """The name servers may be others in another network."""
        servers = self._name_servers()
        addresses = [parse_address(address) for address, _ in servers]
        sources: tuple[str, ...] = ()
        if not any(map(_is_loopback, addresses)):
            sources = tuple(format_address(moa.address) for moa in self._all_moas())
        if (servers, sources) != (self._asked, self._asked_from):
            self._asked, self._asked_from = servers, sources
            self._resolver.use_servers(servers, sources)
        self._uplinks.use_name_servers(a for a in addresses if not _is_loopback(a))

    def _name_servers(self) -> tuple[DnsServer, ...]:
        """Those of the configuration, or of the leases, or of the system."""
        if self._config.dns.servers:
            return self._config.dns.servers
        leased = self._uplinks.name_servers
        if leased:
            return tuple((format_address(address), DNS_PORT) for address in leased)
        try:
            return system_servers()
        except DnsError:
            return (_NOWHERE,)

    # ---- the control socket --------------------------------------------------------------------

    def _answer(self, words: Sequence[str]) -> dict[str, object]:
        match words:
            case ["status"]:
                return self._snapshot()
            case ["rehome", interface]:
                return self._rehome(interface)
            case ["rehome"]:
                return self._rehome("")
            case _:
                return {"error": f"{' '.join(words)!r} is nothing that a node does"}

    def _rehome(self, interface: str) -> dict[str, object]:
        names = list(dict.fromkeys(moa.interface for moa in self._all_moas()))
        if interface and interface not in names:
            known = " ".join(names) or "none"
            return {"error": f"{interface} is no uplink now; there are: {known}"}
        if not interface and len(names) < 2:
            only = f"{names[0]} is the only uplink" if names else "there is no uplink"
            return {"error": f"{only}: there is nowhere to move to"}
        self._preferred = interface or names[1]
        self._changed()
        return {"to": self._preferred}

    def _snapshot(self) -> dict[str, object]:
        now = boottime()
        counters = self._daemon.counters()
        self._look_for_problems()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(now - self._begun, 1),
            "dataplane": self._config.node.dataplane,
            "homes": [home_snapshot(machine, now) for machine in self._machines.values()],
            "uplinks": [
                {
                    "interface": moa.interface,
                    "address": format_address(moa.address),
                    "gateway": format_address(moa.gateway) if moa.gateway else None,
                    "lease": None if moa.until == float("inf") else round(moa.until - now, 1),
                }
                for moa in self._all_moas()
            ],
            "name_servers": [address for address, _ in self._asked],
            "problems": [*self._problems, *self._unanswered(now)],
            "packets": {
                "mapped": counters.mapped,
                "translated": counters.translated,
                "passed": counters.passed,
                "held": counters.held,
                "waiting": counters.waiting,
                "dropped": counters.dropped,
                "overflowed": counters.overflowed,
                "refused": {r.name.lower(): n for r, n in counters.refused.items()},
            },
            "messages": {
                "received": self._daemon.received,
                "sent": self._daemon.sent,
                "malformed": self._daemon.malformed.total(),
            },
            "events": {kind.name.lower(): n for kind, n in self._daemon.events.items()},
        }

    def _unanswered(self, now: float) -> list[str]:
        """That the DNS has failed, in words for the administrator, if it has."""
        if self._daemon.unanswered is None:
            return []
        home_address, at = self._daemon.unanswered
        servers = " ".join(address for address, _ in self._asked)
        asked = f"{format_address(home_address)}, {now - at:.0f} s ago"
        what = f"the DNS ({servers}) had no answer about {asked}"
        meaning = "known peers are reached, new ones, and hosts without MAT, are not"
        return [f"{what}: {meaning}; see what `mat dns lookup` says, and dns.servers"]


def _servers_of(machine: MobileNode) -> Servers:
    return machine.servers


def _is_loopback(address: Address) -> bool:
    text = format_address(address)
    return text.startswith("127.") or text == "::1"
