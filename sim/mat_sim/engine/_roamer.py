"""A host that moves: its links to access networks, the addresses on them, and its handovers.

What it does about a change of its addresses is another matter: `_host.py` has MAT's answer.
"""

from random import Random
from typing import Final, final

from mat.address import Address
from mat_files.scenario import Network as AccessNetwork
from mat_sim.engine._clock import NEVER, Happening
from mat_sim.engine._dhcp import DhcpInterface, DhcpServer, Tenant
from mat_sim.engine._draw import Draw
from mat_sim.engine._flow import Flow
from mat_sim.engine._handover import COMPLETED, SUPERSEDED, UNFINISHED, Handover, is_known
from mat_sim.engine._handovers import Handovers
from mat_sim.engine._network import Link, Network, Site
from mat_sim.engine._pool import Pool
from mat_sim.engine._tally import Tally

_CONFIGURED: Final = 0
_NOTICED: Final = 1
_RENEW: Final = 2


@final
class Access:
    """An access network: where it is, what joining it takes, and its addresses."""

    __slots__ = (
        "address",
        "association",
        "detect",
        "dhcp",
        "pool",
        "random",
        "site",
        "start_attached",
    )

    def __init__(
        self,
        model: AccessNetwork,
        pool: Pool,
        random: Random,
        *,
        network: Network,
        dhcp: DhcpServer | None,
        start_attached: bool,
    ) -> None:
        capacity = network.capacity("network", model.name, model.rate, model.queue)
        self.site = Site(model.delay, model.loss, model.name, capacity=capacity)
        self.pool = pool
        self.detect = Draw(model.detect)
        self.association = Draw(model.association)
        self.address = Draw(model.address)
        self.dhcp = dhcp
        """Who gives addresses out; None where that is `address` alone."""
        self.random = random
        self.start_attached = start_attached
        """Whether a node's first attachment takes no time."""


@final
class _Step(Happening):
    """The next thing that happens to a link."""

    __slots__ = ("access", "host", "link", "stage", "wanted")

    def __init__(
        self, host: "Roamer", link: Link, access: Access, stage: int, wanted: Address | None = None
    ) -> None:
        self.host = host
        self.link = link
        self.access = access
        self.stage = stage
        self.wanted = wanted

    def happen(self) -> None:
        """It happens."""
        self.host.step(self)


@final
class Processing:
    """What all hosts take for their answers."""

    __slots__ = ("random", "time")

    def __init__(self, time: Draw, random: Random) -> None:
        self.time = time
        self.random = random


class Roamer(Tenant):
    """A mobile node or a correspondent, whatever protocol it follows."""

    __slots__ = (
        "_current",
        "_heard",
        "_interfaces",
        "_leaves",
        "_links",
        "_moves",
        "_network",
        "_ordinal",
        "_tally",
        "_waiting",
        "flows",
        "handovers",
        "home",
        "leaves",
        "number",
        "partners",
        "processing",
    )

    def __init__(
        self,
        number: int,
        name: str,
        role: str,
        home: Address,
        *,
        network: Network,
        handovers: Handovers,
        tally: Tally,
    ) -> None:
        super().__init__(network.clock, name, role)
        self.number = number
        self.home = home
        self.flows: tuple[tuple[str, Flow], ...] = ()
        """Direction, seen from this node, and flow."""
        self.partners: tuple[Address, ...] = ()
        """Home addresses of peers that count as in use from the begin, without any flow."""
        self.handovers = handovers
        """Where handovers that are over go."""
        self.leaves = NEVER
        """When its last link goes for good, s."""
        self.processing: Processing | None = None
        """None where hosts take no time."""
        self._heard = -1.0
        """When it was last to say something, s."""
        self._leaves = 0.0
        """When what it said then leaves, s."""
        self._network = network
        self._tally = tally
        self._links: tuple[Link, ...] = ()
        self._interfaces: dict[int, DhcpInterface] | None = None
        """Those that have asked for an address by DHCP."""
        self._moves = 0
        self._ordinal = 0
        """Handovers that are over."""
        self._waiting: list[Handover] | None = None
        """Handovers that are over, but whose traffic is to be measured at the end of the run."""
        self._current: Handover | None = None

    # ---- what a protocol does ------------------------------------------------------------------

    def addresses_changed(self, addresses: list[Address], leases: list[float]) -> None:
        """These are the addresses now, the preferred one first, and when their leases end, s."""
        raise NotImplementedError

    def notifies(self) -> bool:
        """Whether peers are told by messages that a handover waits for."""
        raise NotImplementedError

    def emit(self, flow: Flow) -> None:
        """Send the next packet of a flow."""
        raise NotImplementedError

    def lag(self) -> float:
        """How long from now until what it says now leaves, s.

        One draw for all that it says at a time, and nothing leaves before what it said earlier.
        """
        if self.processing is None:
            return 0.0
        now = self.clock.now
        if self._heard != now:
            self._heard = now
            taken = self.processing.time.sample(self.processing.random)
            self._leaves = max(self._leaves, now + taken)
        return self._leaves - now

    # ---- links ---------------------------------------------------------------------------------

    def settle_at(self, site: Site, address: Address) -> None:
        """This node is here, with this address, from the beginning and for good."""
        link = Link(self, site)
        self._links = (*self._links, link)
        self._network.connect(link, address)
        self.tell()

    def attach(self, access: Access, interface: int, wanted: Address | None) -> None:
        """A network has come into reach and is the preferred one from now on."""
        self._moves += 1
        known = next((one for one in self._links if one.site is access.site and one.up), None)
        if known is not None:
            self._prefer(known)
            return
        link = Link(self, access.site, interface, self._moves)
        first = self._moves == 1 and access.start_attached
        configured = self.clock.now if first else self._join(link, access)
        self._begin_handover(link)
        self._links = (*self._links, link)
        if first:
            self._configure(link, access, wanted, at_once=True)
        else:
            self.clock.at(configured, _Step(self, link, access, _CONFIGURED, wanted))

    def _join(self, link: Link, access: Access) -> float:
        """How a link comes about; when it will have its address, or can ask for one, s.

        One event serves for all these times: nothing else depends on the first two.
        """
        link.acted = self.clock.now + access.detect.sample(access.random)
        link.linked = link.acted + access.association.sample(access.random)
        if access.dhcp is not None:
            return link.linked
        return link.linked + access.address.sample(access.random)

    def step(self, step: _Step) -> None:
        """The next thing happens to a link."""
        if step.stage == _NOTICED:
            self._noticed(step.link)
        elif not step.link.up:
            return
        elif step.stage == _CONFIGURED:
            self._configure(step.link, step.access, step.wanted)
        else:
            self._renew(step)

    def _configure(
        self, link: Link, access: Access, wanted: Address | None, *, at_once: bool = False
    ) -> None:
        """The link has an address, or asks for one, which may be answered at once."""
        now = self.clock.now
        if access.dhcp is not None:
            self._ask(link, access.dhcp, wanted, at_once=at_once)
            return
        leased, link.lease = access.pool.lease(now, self.number, wanted)
        self._network.connect(link, leased)
        self.clock.after((link.lease - now) / 2, _Step(self, link, access, _RENEW))
        self._configured(link)

    def _configured(self, link: Link) -> None:
        """The link has an address."""
        self._replace_interface(link)
        current = self._current
        if current is not None and current.to_link is link and not is_known(current.registered):
            current.has_address(self.clock.now, link)
        self.tell()

    def _ask(
        self, link: Link, server: DhcpServer, wanted: Address | None, *, at_once: bool
    ) -> None:
        if self._interfaces is None:
            self._interfaces = {}
        interface = self._interfaces.get(link.interface)
        if interface is None:
            interface = DhcpInterface(self, self.number, link.interface, server.clients)
            self._interfaces[link.interface] = interface
        if wanted is not None:
            server.reserve(interface.number, wanted)
        interface.associated(link, server, at_once=at_once)

    def bound(self, link: Link, address: Address, until: float) -> None:
        """DHCP has given the link an address, or has prolonged its lease."""
        link.lease = until
        if link.address == address:
            self.tell()
            return
        self._network.withdraw(link)
        self._network.connect(link, address)
        self._configured(link)

    def unbound(self, link: Link) -> None:
        """The lease has run out, or the server has refused to prolong it."""
        self._network.withdraw(link)
        link.lease = NEVER
        self.tell()

    def _renew(self, step: _Step) -> None:
        link, now = step.link, self.clock.now
        if link.address is not None:
            link.lease = step.access.pool.renew(now, link.address)
            self.clock.after((link.lease - now) / 2, step)
            self.tell()

    def _replace_interface(self, link: Link) -> None:
        """What the same interface was attached to before is gone for sure."""
        for old in self._links:
            if old is not link and old.interface == link.interface and not old.up:
                old.noticed_down = True

    def detach(self, access: Access) -> None:
        """A network is out of reach: its link is dead at once, and noticed after a while."""
        ups = [one for one in self._links if one.up]
        link = next(one for one in ups if one.site is access.site)
        preferred = max(ups, key=_order)
        self._network.disconnect(link)
        if access.dhcp is not None:
            self._leave(link)
        elif link.address is not None:
            access.pool.left(self.number, link.address)
        if link is preferred:
            self._lost_preferred(link)
        notice = access.detect.sample(access.random)
        self.clock.after(notice, _Step(self, link, access, _NOTICED))

    def _leave(self, link: Link) -> None:
        """The interface that asked by this link, if it did, has it no more."""
        interface = self._interfaces.get(link.interface) if self._interfaces is not None else None
        if interface is not None:
            interface.left(link)

    def _noticed(self, link: Link) -> None:
        self._links = tuple([one for one in self._links if one is not link])
        if link.noticed_down:
            return
        link.noticed_down = True
        current = self._current
        if current is not None and current.from_link is link and not is_known(current.configured):
            target = current.to_link
            if target is not None and target.address is not None:
                current.acted = self.clock.now
                current.has_address(self.clock.now, target)
        self.tell()

    def tell(self) -> None:
        """The protocol hears of the addresses."""
        usable = [one for one in self._links if one.address is not None and not one.noticed_down]
        if len(usable) > 1:
            usable.sort(key=_order, reverse=True)
        addresses = [one.address for one in usable if one.address is not None]
        self.addresses_changed(addresses, [one.lease for one in usable])

    def forget_endpoints(self) -> None:
        """They are made again when something is sent."""
        for link in self._links:
            link.endpoint = None

    def first_link(self) -> Link | None:
        """The link that it has from the beginning."""
        return self._links[0] if self._links else None

    def preferred_site(self) -> Site | None:
        """Where it is, or was last."""
        return self._links[-1].site if self._links else None

    # ---- handovers -----------------------------------------------------------------------------

    def _peers(self) -> tuple[Address, ...]:
        """Home addresses of the peers that traffic is going on with."""
        now = self.clock.now
        peers = [flow.peer(way) for way, flow in self.flows if flow.begun and flow.stops > now]
        return tuple(dict.fromkeys((*self.partners, *peers))) if peers else self.partners

    def _open(self, from_link: Link, to_link: Link | None) -> None:
        """A new handover takes the place of one that is not complete."""
        now = self.clock.now
        if self._current is not None:
            self._close(SUPERSEDED)
        self._current = Handover(self._ordinal + 1, now, from_link, self._peers())
        if to_link is not None:
            self._current.reaches(now, to_link)
        for _, flow in self.flows:
            flow.handover_begins(now)
        self._tally.watch(self.name, self.home)

    def _close(self, outcome: str) -> None:
        current, self._current = self._current, None
        if current is None:
            return
        for _, flow in self.flows:
            flow.handover_ends(current.began, self.clock.now)
        counts = current.to_link is not None
        completed = counts and outcome == COMPLETED
        self._tally.unwatch(self.name, current.kind if completed else None)
        if not counts:
            return
        current.finish(self.clock.now, outcome)
        self._ordinal += 1
        if not self.flows:
            self.handovers.add(self.number, current, self.flows)
            return
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(current)

    def _begin_handover(self, link: Link) -> None:
        """A new network is in reach: the goal of a handover seeking one, or of a new one."""
        if self._current is not None and self._current.to_link is None:
            self._current.reaches(self.clock.now, link)
            return
        ups = [one for one in self._links if one.up]
        if ups:
            self._open(max(ups, key=_order), link)

    def _lost_preferred(self, link: Link) -> None:
        if self.clock.now >= self.leaves:
            self._close(UNFINISHED)
            return
        others = [one for one in self._links if one.up]
        self._open(link, max(others, key=_order, default=None))

    def _prefer(self, link: Link) -> None:
        """Back to a network whose link is still up: nothing to set up."""
        old = max((one for one in self._links if one.up), key=_order)
        link.order = self._moves
        if old is link:
            return
        self._open(old, link)
        if self._current is not None and link.address is not None:
            self._current.has_address(self.clock.now, link)
            self.tell()

    def check_complete(self) -> None:
        """A handover ends when nothing is left to happen."""
        current = self._current
        if current is None or not is_known(current.registered):
            return
        now = self.clock.now
        flows = [(way, flow) for way, flow in self.flows if flow.stops > now]
        if current.is_complete(flows, notifies=self.notifies()):
            self._close(COMPLETED)

    def first_delivery(self, way: str, peer: Address, through: Address) -> None:
        """A data packet of a flow has been delivered."""
        if self._current is not None:
            self._current.delivered(self.clock.now, way, peer, through)
            self.check_complete()

    def awaits(self, way: str, peer: Address, through: Address) -> bool:
        """Whether a handover waits for a data packet that is delivered like this."""
        return self._current is not None and self._current.awaits(way, peer, through)

    def end(self) -> None:
        """The run is over."""
        self._close(UNFINISHED)
        for handover in self._waiting or ():
            self.handovers.add(self.number, handover, self.flows)

    def dissolve(self) -> None:
        """Let go of what refers to this host."""
        self._links = ()


def _order(link: Link) -> int:
    return link.order
