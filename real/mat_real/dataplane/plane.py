"""The dataplane: the kernel's tables on one side, the queue on the other.

What is set and cleared is collected, and put into the kernel's maps by `commit`: one nftables
transaction, of both families, with the elements that differ. A translation that the maps cannot
express (a Mapping Update Option on every packet out, a mobile router's prefix) is not in them, and
its packets come to the queue, as all do in the mode `Mode.QUEUE`.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from mat.address import Address, prefix_of, to_packed
from mat.effects import Handle, Translation
from mat_real.dataplane import QUEUE, Consumer, Counters, DataplaneError, Mode, rules
from mat_real.dataplane.maps import KernelMaps
from mat_real.dataplane.nfnetlink import Netlink
from mat_real.dataplane.nft import Nft
from mat_real.dataplane.queue import PacketQueue
from mat_real.dataplane.rules import FAMILIES, IPV4, IPV6, MAPS, MOBILES, TABLE, Family, family_of
from mat_real.dataplane.table import HOST, Outward, TranslationTable
from mat_real.dataplane.translator import Held, Own, Translator

ETHERNET_MTU: Final = 1500
_SETTINGS: Final = Path("/proc/sys/net")

_log = logging.getLogger("mat.node")


@final
class NetfilterDataplane:
    """A `Dataplane` by nftables and NFQUEUE, for both families of the present network namespace.

    Made on a running event loop, in the namespace that it is for.
    """

    def __init__(
        self,
        consumer: Consumer,
        mode: Mode = Mode.MAPS,
        *,
        queue: int = QUEUE,
        mtu: int = ETHERNET_MTU,
    ) -> None:
        """Take over what a predecessor left, and read the queue. Raises `DataplaneError`.

        `queue` is a number that nobody else uses here; for `mtu` see `Dataplane`.
        """
        self._mode = mode
        self._table = TranslationTable()
        self._maps = {family: KernelMaps(family) for family in FAMILIES}
        self._own: dict[Family, Own] = {}
        self._changed: dict[Family, Own] = {}
        self._uplinks: tuple[tuple[str, Address], ...] | None = None
        self._forwarding: set[Family] = set()
        self._beside: dict[Family, str] = {}
        """What the kernel was told of hosts behind this one."""
        self._homes: set[Address] = set()
        """Peers set or cleared since the last commit."""
        self._keys: set[bytes] = set()
        """Keys of translations in, likewise."""
        self._made: dict[Family, str] = {}
        """What was made of the tables that are there; see `rules.tag`."""
        # The queue first: libnftables ends the process where it lacks permission.
        self._queue = PacketQueue(queue)
        self._netlink = Netlink()
        try:
            self._nft = Nft()
            self._standing = [found for family in FAMILIES for found in self._load(family)]
        except DataplaneError:
            self._netlink.close()
            self._queue.close()
            raise
        self._translator = Translator(self._table, self._queue, consumer, mtu)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._queue.fileno(), self._queue.read, self._translator.arrived)

    @property
    def mtu(self) -> int:
        """Bytes that a packet may have with a Mapping Update Option; larger ones go without."""
        return self._translator.mtu

    @mtu.setter
    def mtu(self, size: int) -> None:
        self._translator.mtu = size

    # ---- translations --------------------------------------------------------------------------

    def set(self, translation: Translation) -> None:
        """Translate packets of this peer like this; see `Dataplane`."""
        self._homes.add(translation.home)
        self._keys.update(self._table.set(translation))

    def clear(self, home_address: Address) -> None:
        """Bring packets of this peer to the `Consumer`; see `Dataplane`."""
        self._homes.add(home_address)
        self._keys.update(self._table.clear(home_address))

    def own(self, home: Address, prefix_length: int, mobile: Sequence[Address]) -> None:
        """The own addresses of one family; see `Dataplane`."""
        self._changed[family_of(home)] = Own(home, prefix_length, tuple(mobile))

    def uplinks(self, addresses: Sequence[tuple[str, Address]]) -> None:
        """The interfaces that lead out; see `Dataplane`."""
        self._uplinks = tuple(addresses)
        self._changed = self._own | self._changed

    def commit(self) -> None:
        """Do what was collected, in one transaction, or nothing of it: raises `DataplaneError`.

        Where the kernel has not what it should, because somebody flushed all tables or another
        version of this program made them, everything is made anew.
        """
        if not (self._changed or self._homes or self._keys):
            return
        try:
            self._commit()
        except DataplaneError:
            self._forget()
            self._commit()

    def _commit(self) -> None:
        if self._changed:
            self._look_at_forwarding()
        for family, own in self._changed.items():
            self._provide(family, own)
        wanted = {family: self._wanted(family) for family in self._maps}
        self._netlink.change(
            [each for family in wanted for each in self._maps[family].changes(wanted[family])]
        )
        for family, values in wanted.items():
            self._maps[family].done(values)
        self._tell_of_hosts_behind()
        self._own |= self._changed
        self._translator.own(self._own.values())
        for done in (self._changed, self._homes, self._keys):
            done.clear()

    def _provide(self, family: Family, own: Own) -> None:
        """Have a table that is made for this home address, or prefix."""
        before = self._own.get(family)
        if before is not None and replace(before, mobile=own.mobile) == own:
            return
        text = rules.table(family, own.home, own.prefix_length)
        others = rules.queueing(family, self._queue.number)
        if own.prefix_length == HOST and self._mode is Mode.MAPS:
            others += rules.translating(family)
        tag = rules.tag(text, others)
        if self._made.get(family) == tag:
            return
        self._nft.run(text + rules.tagging(family, tag))
        self._netlink.change(others)
        self._made[family] = tag
        self._maps[family] = KernelMaps(family)
        self._beside.pop(family, None)
        self._own.pop(family, None)
        # Its maps are empty yet.
        self._homes.update(home for home in self._table.by_home if family_of(home) is family)
        self._keys.update(key for key in self._table.inward if len(key) == 2 * family.width)

    def _tell_of_hosts_behind(self) -> None:
        """What concerns containers and the like. Nobody waits for it: it goes after the maps."""
        for family, own in self._changed.items():
            if own.prefix_length != HOST or self._uplinks is None:
                continue
            uplinks = [pair for pair in self._uplinks if family_of(pair[1]) is family]
            forwarding = family in self._forwarding
            text = rules.beside(family, own.home, uplinks, forwarding=forwarding)
            if self._beside.get(family) != text:
                self._beside[family] = text
                try:
                    self._nft.run(text)
                except DataplaneError as error:
                    # Translation does without.
                    _log.error("hosts behind this one may have no connections: %s", error)

    def _look_at_forwarding(self) -> None:
        """See whether the host has begun to forward packets, or ended; nobody tells of that."""
        before, self._forwarding = self._forwarding, set(filter(_forwards, FAMILIES))
        if before - self._forwarding:
            # What is there for it goes with the tables only.
            self._forget()
        elif before != self._forwarding:
            self._changed = self._own | self._changed

    def _forget(self) -> None:
        """Have the next commit make the tables, with all that is in them."""
        self._changed = self._own | self._changed
        self._own = {}
        self._made = {}

    def _wanted(self, family: Family) -> dict[str, dict[bytes, bytes | None]]:
        """What the touched elements of a family's maps and sets are to be."""
        start = 16 - family.width
        out: dict[bytes, bytes | None] = {}
        for home in self._homes:
            if family_of(home) is family:
                key = home[start:]
                entry = self._in_kernel(self._table.outward.get(key))
                out[key] = entry and entry.source[start:] + entry.destination[start:]
        back: dict[bytes, bytes | None] = {}
        for key in self._keys:
            if len(key) == 2 * family.width:
                found = self._table.inward.get(key) if self._mode is Mode.MAPS else None
                back[key] = found and found.home[start:] + found.local_home[start:]
        return {"out": out, "in": back, **self._members(family)}

    def _members(self, family: Family) -> dict[str, dict[bytes, bytes | None]]:
        own = self._changed.get(family)
        if own is None:
            return {}
        mobiles = {to_packed(prefix_of(each, own.prefix_length)) for each in own.mobile}
        return {MOBILES: self._maps[family].members(MOBILES, mobiles)}

    def _in_kernel(self, entry: Outward | None) -> Outward | None:
        """The entry, if the maps can express it."""
        if entry is None or self._mode is not Mode.MAPS:
            return None
        translation = entry.translation
        plain = translation.announce is None and translation.local_prefix_length == HOST
        return entry if plain else None

    # ---- packets -------------------------------------------------------------------------------

    def release(self, handle: Handle, translation: Translation) -> None:
        """Rewrite a held packet and let it go; see `Dataplane`."""
        assert isinstance(handle, Held)
        self._translator.release(handle, translation)

    def drop(self, handle: Handle) -> None:
        """Discard a held packet."""
        assert isinstance(handle, Held)
        self._translator.drop(handle)

    def used(self) -> list[Address]:
        """Home addresses of the peers whose packets were translated since the last call."""
        found, self._translator.used = self._translator.used, set()
        self._look_at_forwarding()
        if not all(self._netlink.has_rules(family.number, TABLE) for family in self._own):
            # Somebody removed or emptied a table. This is called now and then, so it is found here.
            self._forget()
        self.commit()
        if self._mode is Mode.MAPS:
            for family in self._own:
                found.update(self._counted(family))
        return list(found)

    def _counted(self, family: Family) -> Iterable[Address]:
        for name in MAPS:
            listed = self._netlink.elements(family.number, TABLE, name) or ()
            yield from self._maps[family].used(name, listed)

    def counters(self) -> Counters:
        """What happened to packets so far; a copy."""
        counted = self._translator.counters
        return replace(
            counted,
            mapped=sum(self._mapped(family) for family in self._own),
            waiting=self._translator.waiting,
            overflowed=self._queue.overflowed(),
            refused=counted.refused.copy(),
        )

    def _mapped(self, family: Family) -> int:
        return sum(self._netlink.counters(family.number, TABLE).values())

    def traffic(self, *, ipv4: bool) -> tuple[int, int]:
        """Packets in and out that the kernel has translated so far; see `Dataplane`."""
        family = IPV4 if ipv4 else IPV6
        counted = self._netlink.counters(family.number, TABLE)
        return counted.get(rules.MAPPED_IN, 0), counted.get(rules.MAPPED_OUT, 0)

    # ---- what outlives a process ---------------------------------------------------------------

    def standing(self) -> list[Translation]:
        """What a predecessor left in the kernel, and was neither set nor cleared since."""
        return [found for found in self._standing if self._table.by_home.get(found.home) is found]

    def _load(self, family: Family) -> list[Translation]:
        """Take the maps that stand for this dataplane's own."""
        maps = self._maps[family]
        for name in (*MAPS, MOBILES):
            maps.load(name, self._netlink.elements(family.number, TABLE, name) or ())
        if maps.elements[MOBILES]:
            names = self._netlink.counters(family.number, TABLE)
            self._made[family] = next(filter(rules.is_tag, names), "")
        standing = list(maps.standing()) if self._mode is Mode.MAPS else []
        for translation in standing:
            self._table.set(translation)
        # What is no whole translation goes with the first commit.
        self._keys.update(key for key in maps.elements["in"] if key not in self._table.inward)
        self._homes.update(
            maps.address(key) for key in maps.elements["out"] if key not in self._table.outward
        )
        return standing

    def _remove_tables(self) -> None:
        """Remove the tables, those that are there."""
        tables = [f"table {family.name} {TABLE}" for family in FAMILIES]
        self._nft.run("".join(f"add {each}\ndelete {each}\n" for each in tables))

    def close(self, *, keep: bool = False) -> None:
        """End; remove what is in the kernel, unless it is kept for a successor."""
        self._loop.remove_reader(self._queue.fileno())
        self._translator.close()
        try:
            if not keep:
                self._remove_tables()
        finally:
            self._netlink.close()
            self._queue.close()


def _forwards(family: Family) -> bool:
    """Whether this host is a router in a family, for containers or for guests as well."""
    try:
        return int((_SETTINGS / family.forwarding).read_text()) != 0
    except FileNotFoundError:
        # The kernel was started without the family.
        return False
