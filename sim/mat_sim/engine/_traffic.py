"""The flows of a run: between whom, when, and how they are played."""

from collections.abc import Sequence
from random import Random
from typing import Final, final

from numpy.random import PCG64, Generator

from mat.parameters import Parameters
from mat_files.scenario import Traffic
from mat_sim.engine._conversations import HEARD_SHARE
from mat_sim.engine._flow import DOWN, UP, Flow
from mat_sim.engine._host import Host, Parting, Sending
from mat_sim.engine._network import Network
from mat_sim.engine._pairs import Pair
from mat_sim.engine._quiet import QuietFlow, Surroundings
from mat_sim.engine._rhythm import OnOff, Poisson, Regular, Rhythm
from mat_sim.engine._roamer import Roamer
from mat_sim.engine._tally import Tally

_SEED_BITS: Final = 64


@final
class Flows:
    """Makes the flows."""

    def __init__(
        self,
        traffic: Traffic,
        network: Network,
        tally: Tally,
        *,
        parameters: Parameters,
        random: Random,
        quiet: Random,
    ) -> None:
        """`random` is for when packets are sent, `quiet` for their fate without events."""
        self._traffic = traffic
        self._network = network
        self._random = random
        self._around = Surroundings(
            network,
            tally,
            random=quiet,
            counts=Generator(PCG64(quiet.getrandbits(_SEED_BITS))),
            pause=parameters.peer_idle_time * HEARD_SHARE,
            holds=parameters.hold_per_peer,
        )

    def make(
        self, pairs: Sequence[Pair], presence: dict[int, tuple[float, float]], end: float
    ) -> None:
        """`presence` is from when until when a node that moves is there, by its number, s."""
        found: dict[Roamer, list[tuple[str, Flow]]] = {}
        for one, other in pairs:
            ends = [presence[host.number] for host in (one, other) if host.number in presence]
            begin = max(begin for begin, _ in ends) + self._traffic.start
            stops = min(leaves for _, leaves in ends)
            if len(ends) > 1 and stops < end:
                self._network.clock.at(stops, Parting(one, other))
            for sender, receiver, rate in (
                (one, other, self._traffic.up),
                (other, one, self._traffic.down),
            ):
                if rate:
                    flow = self._flow(sender, receiver, self._rhythm(begin, 1 / rate), stops)
                    found.setdefault(sender, []).append((UP, flow))
                    found.setdefault(receiver, []).append((DOWN, flow))
        for host, flows in found.items():
            host.flows = tuple(flows)

    def _rhythm(self, begin: float, spacing: float) -> Rhythm:
        traffic, random = self._traffic, self._random
        if traffic.kind == "cbr":
            return Regular(begin + random.random() * spacing, spacing)
        seed = random.getrandbits(_SEED_BITS)
        if traffic.kind == "poisson":
            return Poisson(begin, spacing, seed)
        on, off, own = traffic.on, traffic.off, Random(seed)
        begin += own.random() * (on.mean + off.mean)
        return OnOff(begin, spacing, on, off, own)

    def _flow(self, sender: Roamer, receiver: Roamer, rhythm: Rhythm, stops: float) -> Flow:
        size = self._traffic.size
        if self._traffic.events == "changes":
            assert isinstance(sender, Host)
            assert isinstance(receiver, Host)
            quiet = QuietFlow(
                sender, receiver, rhythm=rhythm, size=size, stops=stops, around=self._around
            )
            quiet.begin(Sending(sender, quiet))
            return quiet
        for host, peer in ((sender, receiver), (receiver, sender)):
            if isinstance(host, Host):
                host.tie(peer.home)
        flow = Flow(
            sender=sender.name,
            receiver=receiver.name,
            source=sender.home,
            destination=receiver.home,
            rhythm=rhythm,
            size=size,
            stops=stops,
        )
        self._network.clock.early_at(rhythm.next, Sending(sender, flow))
        return flow
