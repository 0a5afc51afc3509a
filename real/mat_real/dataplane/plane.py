"""The dataplane: the kernel's tables on one side, the queue on the other.

What is set and cleared is collected, and put into the kernel's maps by `commit`: one nftables
transaction, of both families, with the elements that differ. A translation that the maps cannot
express (a Mapping Update Option on every packet out, a mobile router's prefix) is not in them, and
its packets come to the queue, as all do in the mode `Mode.QUEUE`.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, final

from mat.address import Address, format_address, parse_address, to_packed
from mat.effects import Handle, Translation
from mat_real.dataplane import MARK, QUEUE, Consumer, Counters, DataplaneError, Mode, rules
from mat_real.dataplane.maps import COUNTING, KernelMaps
from mat_real.dataplane.nft import Nft, iptables
from mat_real.dataplane.queue import PacketQueue
from mat_real.dataplane.rules import FAMILIES, TABLE, Family, family_of
from mat_real.dataplane.table import HOST, Outward, TranslationTable, inward_keys
from mat_real.dataplane.translator import Held, Own, Translator

ETHERNET_MTU: Final = 1500


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
        mark: int = MARK,
        queue: int = QUEUE,
        mtu: int = ETHERNET_MTU,
    ) -> None:
        """Take over what a predecessor left, and read the queue. Raises `DataplaneError`.

        `mark` is a bit of packets' marks that nobody else uses here, `queue` a number likewise;
        for `mtu` see `Dataplane`.
        """
        self._mode = mode
        self._mark = mark
        self._table = TranslationTable()
        self._maps = {family: KernelMaps(family) for family in FAMILIES}
        self._own: dict[Family, Own] = {}
        self._changed: dict[Family, Own] = {}
        self._direct: tuple[Address, ...] = ()
        self._homes: set[Address] = set()
        """Peers set or cleared since the last commit."""
        self._keys: set[bytes] = set()
        """Keys of translations in, likewise."""
        # The queue first: libnftables ends the process where it lacks permission.
        self._queue = PacketQueue(queue)
        try:
            self._nft = Nft()
            self._standing = [found for family in self._present() for found in self._load(family)]
        except DataplaneError:
            self._queue.close()
            raise
        self._translator = Translator(self._table, self._queue, consumer, mark, mtu)
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
        self._touch(translation.home)
        self._table.set(translation)
        self._keys.update(inward_keys(translation))

    def clear(self, home_address: Address) -> None:
        """Bring packets of this peer to the `Consumer`; see `Dataplane`."""
        self._touch(home_address)
        self._table.clear(home_address)

    def _touch(self, home_address: Address) -> None:
        self._homes.add(home_address)
        known = self._table.by_home.get(home_address)
        if known is not None:
            self._keys.update(inward_keys(known))

    def own(self, home: Address, prefix_length: int, mobile: Sequence[Address]) -> None:
        """The own addresses of one family; see `Dataplane`."""
        self._changed[family_of(home)] = Own(home, prefix_length, tuple(mobile))

    def direct(self, addresses: Sequence[Address]) -> None:
        """Hosts that are spoken to as without MAT, at home too; see `Dataplane`."""
        self._direct = tuple(addresses)
        self._changed = self._own | self._changed

    def commit(self) -> None:
        """Do what was collected, in one transaction, or nothing of it: raises `DataplaneError`.

        Where the kernel has not what it should, because somebody flushed all tables or another
        version of this program made them, everything is made anew.
        """
        try:
            self._commit()
        except DataplaneError:
            self._forget()
            self._commit()

    def _commit(self) -> None:
        made = [family for family in self._changed if family not in self._own]
        commands = "".join(self._owning(*changed) for changed in self._changed.items())
        wanted = {family: self._wanted(family) for family in self._maps}
        commands += "".join(self._maps[family].commands(wanted[family]) for family in wanted)
        for family in made:
            self._enqueue(family)
        if commands:
            self._nft.run(commands)
        for family, values in wanted.items():
            self._maps[family].done(values)
        self._own |= self._changed
        self._translator.own(self._own.values())
        for done in (self._changed, self._homes, self._keys):
            done.clear()

    def _forget(self) -> None:
        """Remove the tables, so that the next commit makes them, with all that is in them."""
        self._remove_tables()
        self._changed = self._own | self._changed
        self._own = {}
        self._maps = {family: KernelMaps(family) for family in FAMILIES}
        self._homes.update(self._table.by_home)
        self._keys.update(self._table.inward)

    def _owning(self, family: Family, own: Own) -> str:
        before = self._own.get(family)
        commands = ""
        if before is None or replace(before, mobile=own.mobile) != own:
            commands = rules.table(family, own.home, own.prefix_length, self._mode, self._mark)
        listed = [rules.network(address, own.prefix_length) for address in own.mobile]
        return commands + rules.members(family, "mobiles", listed) + self._directing(family)

    def _directing(self, family: Family) -> str:
        listed = [format_address(each) for each in self._direct if family_of(each) is family]
        return rules.members(family, "direct", listed)

    def _wanted(self, family: Family) -> dict[str, dict[bytes, bytes | None]]:
        """What the touched elements of a family's maps are to be."""
        local: dict[bytes, bytes | None] = {}
        mobile: dict[bytes, bytes | None] = {}
        for home in self._homes:
            if family_of(home) is family:
                key = to_packed(home)
                entry = self._in_kernel(self._table.outward.get(key))
                local[key] = None if entry is None else to_packed(entry.source)
                mobile[key] = None if entry is None else to_packed(entry.destination)
        back: dict[bytes, bytes | None] = {}
        for key in self._keys:
            if len(key) == 2 * family.width:
                found = self._table.inward.get(key) if self._mode is Mode.MAPS else None
                back[key] = None if found is None else to_packed(found.home)
        return {"local": local, "mobile": mobile, "home": back}

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
        if self._mode is Mode.MAPS:
            try:
                for family in self._own:
                    found.update(self._counted(family))
            except DataplaneError:
                # The tables are gone; this is called now and then, so it is found out here.
                self._forget()
                self._commit()
        return list(found)

    def _counted(self, family: Family) -> Iterable[Address]:
        for name in COUNTING:
            for listed in self._nft.read(f"list map {family.name} {TABLE} {name}"):
                if "map" in listed:
                    yield from self._maps[family].used(listed["map"])

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
        listed = self._nft.read(f"list counters table {family.name} {TABLE}")
        return sum(found["counter"]["packets"] for found in listed if "counter" in found)

    # ---- what outlives a process ---------------------------------------------------------------

    def standing(self) -> list[Translation]:
        """What a predecessor left in the kernel, and was neither set nor cleared since."""
        return [found for found in self._standing if self._table.by_home.get(found.home) is found]

    def _present(self) -> list[Family]:
        tables = [found["table"] for found in self._nft.read("list tables") if "table" in found]
        names = {found["family"] for found in tables if found["name"] == TABLE}
        return [family for family in FAMILIES if family.name in names]

    def _load(self, family: Family) -> list[Translation]:
        """Take the maps that stand for this dataplane's own."""
        maps, home = self._maps[family], None
        for found in self._nft.read(f"list table {family.name} {TABLE}"):
            if "map" in found:
                maps.load(found["map"])
            elif found.get("set", {}).get("name") == "homes":
                home = _single(found["set"].get("elem", ()))
        standing: list[Translation] = []
        if home is not None and self._mode is Mode.MAPS:
            standing.extend(maps.standing(home))
        for translation in standing:
            self._table.set(translation)
        # What is no whole translation goes with the first commit.
        self._keys.update(key for key in maps.elements["home"] if key not in self._table.inward)
        peers = maps.elements["local"].keys() | maps.elements["mobile"].keys()
        self._homes.update(maps.address(key) for key in peers if key not in self._table.outward)
        return standing

    def _enqueue(self, family: Family) -> None:
        """Have marked packets sent to the queue."""
        self._leave_queue(family)
        lines = rules.to_queue(self._mark, self._queue.number)
        iptables(f"{family.iptables}-restore", lines)

    def _leave_queue(self, family: Family) -> None:
        lines = rules.without_queue(iptables(f"{family.iptables}-save"))
        if lines:
            iptables(f"{family.iptables}-restore", lines)

    def _remove_tables(self) -> None:
        self._nft.run("".join(f"delete table {f.name} {TABLE}\n" for f in self._present()))

    def close(self, *, keep: bool = False) -> None:
        """End; remove what is in the kernel, unless it is kept for a successor."""
        self._loop.remove_reader(self._queue.fileno())
        try:
            if not keep:
                self._remove_tables()
                for family in FAMILIES:
                    self._leave_queue(family)
        finally:
            self._queue.close()


def _single(elements: Sequence[object]) -> Address | None:
    """The home address of a host, as the set `homes` lists it; None for a home prefix."""
    if len(elements) != 1 or not isinstance(elements[0], str):
        return None
    return parse_address(elements[0])
