"""A network of namespaces on this machine, in which real programs run: the lab itself.

    from mat_real.lab import Lab, simple_plan

    with Lab(simple_plan()) as lab:
        lab.start_dns()
        lab.start_ims("IMS_MN", "IMS_CN")
        lab.attach("MN", "A")
        print(lab.run("MN", "ping", "-c1", "192.0.2.53"))

What there is and where is the plan's (`mat_real.lab.plan`), how it is wired is said in
`mat_real.lab.layout`. A lab leaves nothing: at the end of the block, however it ends, its programs
are ended and its namespaces removed. Where its process has no time for that (kill -9),
`remove_leftovers` does it later. Whatever runs in one of its namespaces counts as the lab's.
"""

import atexit
import itertools
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Literal, Self, final

from pyroute2 import IPRoute

from mat_files.attachment import Action
from mat_files.mobility import Mobility
from mat_files.scenario import Scenario
from mat_real.lab import recorder
from mat_real.lab.addressing import Addressing, indexes
from mat_real.lab.errors import LabError
from mat_real.lab.impairment import (
    WireReport,
    import_path,
    needs_process,
    qdiscs,
    read_reports,
    wire_command,
)
from mat_real.lab.inside import Resident, inside
from mat_real.lab.keys import issue_keys
from mat_real.lab.layout import (
    AIR,
    CORE,
    Layout,
    Uplink,
    bridge,
    names,
    port,
    sysctls,
    uplinks,
)
from mat_real.lab.measure import Measured, check
from mat_real.lab.moves import Move
from mat_real.lab.plan import IpAddress, Node, Pair, Plan
from mat_real.lab.play import Played, play
from mat_real.lab.programs import START_TIME, Program, require, stop_all
from mat_real.lab.recording import FILE, WANTED, Recording
from mat_real.lab.services import (
    DHCP_READY,
    DNS_READY,
    IMS_READY,
    MAT,
    NODE_READY,
    Dataplane,
    dns_command,
    dnsmasq,
    ims_config,
    node_config,
)
from mat_real.lab.solicit import Solicitor
from mat_real.lab.state import Claim, batch, namespaces_of, netns, remove_namespaces
from mat_real.lab.streams import Stream, StreamOptions, traffic
from mat_real.lab.wire import READY, without_offloads
from mat_real.namespaces import NodeRef

PROGRAMS: Final = {
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "tc": "iproute2",
}
"""What a lab starts, and the packages of Debian that bring it."""
PROGRAMS_OF_NODES: Final = {"nft": "nftables"}
SHARE_TIME: Final = 2.0
"""Seconds that programs started together have more for each of them."""


@final
class Lab:
    """A lab, from `build` to `close`; as a context it does both.

    `plan` says what there is. Logs, keys and configurations are in `folder`, by node; without one,
    in a temporary folder that goes with the lab. Root is needed, or `enter_user_namespace` before.
    All methods belong to one thread, and raise `LabError`.
    """

    def __init__(self, plan: Plan, folder: Path | None = None) -> None:
        self.plan = plan
        self.moves: list[Move] = []
        """What was attached and detached, in order."""
        self.attached: dict[tuple[str, int], str] = {}
        """The networks of mobile nodes' interfaces, by node and interface."""
        self._given = folder
        self._cleanup = ExitStack()
        self._programs: list[Program] = []
        self._air: Resident
        self._netlink: IPRoute
        self._indexes: dict[str, int] = {}
        self._keys_issued = False
        self._serving = False
        self._recording: Recording | None = None
        self.checked = False
        """Whether the links were measured, and found to be what was asked for."""
        self._wires: dict[str, Program] = {}
        self._needed: list[Program] = []
        self._addressing: dict[str, Addressing] = {}
        """Of the nodes that the lab configured."""
        self.held: list[Stream] = []
        """Streams that begin when a scenario is played."""
        self.ports = itertools.count()
        """Numbers of streams, by which their ports differ."""

    def __enter__(self) -> Self:
        self.build()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        self.close()

    # ---- life ----------------------------------------------------------------------------------

    def build(self) -> None:
        """Make the namespaces, wire them, start the DHCP servers. What fails leaves nothing."""
        require(PROGRAMS)
        claim = Claim()
        self.name = claim.name
        """The lab's name, which its namespaces' names begin with."""
        self._cleanup.callback(claim.give_up)
        # For Ctrl-C in the moment between the end of a block and `close`.
        self._cleanup.callback(atexit.unregister, atexit.register(self.close))
        self._sockets = claim.path
        try:
            self._make_folder(claim)
            self._make_namespaces()
            self._wire()
            self._serve_dhcp()
            solicitor = Solicitor([self.ref(one.name) for one in self.plan.nodes if one.mobile])
            self._cleanup.callback(solicitor.stop)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all programs, remove the namespaces. Ctrl-C meanwhile is obeyed when that is done."""
        with _undisturbed():
            self._cleanup.close()

    def _make_folder(self, claim: Claim) -> None:
        if self._given is not None:
            self.folder = self._given.resolve()
            self.folder.mkdir(parents=True, exist_ok=True)
        else:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
            claim.note_folder(self.folder)
            self._cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def _make_namespaces(self) -> None:
        self._full = {name: f"{self.name}-{name}" for name in names(self.plan)}
        self._cleanup.callback(lambda: remove_namespaces(namespaces_of(self.name)))
        netns("add", self._full.values())
        self._cleanup.callback(lambda: stop_all(self._programs))
        for name in self._full:
            inside(self.ref(name), partial(_write, sysctls(self.plan, name)))

    def _wire(self) -> None:
        links = uplinks(self.plan)
        self._air = Resident(self.ref(AIR))
        self._cleanup.callback(self._air.leave)
        self._netlink = self._air.do(IPRoute)
        self._cleanup.callback(lambda: self._air.do(self._netlink.close))
        self.netem = any(link.quality.impaired for link in links) and self._has_netem()
        """Whether the kernel's netem is used."""
        self.wired = [link for link in links if needs_process(link.quality, netem=self.netem)]
        """The links that processes impair."""
        layout = Layout(self.plan, self._full, {link.name for link in self.wired})
        for name, lines in layout.batches():
            self._batch("ip", name, lines)
        self._indexes = self._air.do(lambda: indexes(self._netlink))
        self._impair(links)

    def _impair(self, links: Sequence[Uplink]) -> None:
        inner = [line for link in links for line in qdiscs(link, link.inner, netem=self.netem)]
        self._batch("tc", CORE, inner)
        for link in links:
            self._batch("tc", link.name, list(qdiscs(link, link.outer, netem=self.netem)))
        inside(self.ref(CORE), lambda: without_offloads(link.inner for link in self.wired))
        for link in self.wired:
            inside(self.ref(link.name), partial(without_offloads, [link.outer]))
        for link in self.wired:
            log = f"wire-{link.name}.log"
            self._wires[link.name] = self.start(AIR, wire_command(link), log, env=import_path())
        for wire in self._wires.values():
            wire.wait_for(READY)
            self._needed.append(wire)

    def _has_netem(self) -> bool:
        """Whether the kernel has netem, found out by trying."""
        try:
            self._batch("tc", AIR, ["qdisc add dev lo root netem delay 1ms"])
            self._batch("tc", AIR, ["qdisc del dev lo root"])
        except LabError:
            return False
        return True

    def _serve_dhcp(self) -> None:
        servers: list[Program] = []
        for network in self.plan.networks:
            folder = self.folder_of(network.name)
            config = folder / "dnsmasq.conf"
            config.write_text(dnsmasq(self.plan, network, folder))
            # In the foreground, and without a change of user, which a user namespace has no
            # other of.
            command = ["dnsmasq", "--no-daemon", f"--conf-file={config}"]
            servers.append(self.start(network.name, command, "dnsmasq.log"))
        for server in servers:
            server.wait_for(DHCP_READY)
        self._needed += servers

    def _batch(self, program: str, name: str, lines: Sequence[str]) -> None:
        if lines:
            command = ["nsenter", f"--net={self.ref(name).path}", "--", *program.split()]
            batch(command, "\n".join([*lines, ""]))

    def check(self) -> list[Measured]:
        """Read back and measure all links to the core, before a run; what was found, by link.

        It takes about a second, and some more where there is loss or a rate. Raises `LabError` if
        anything is not as the plan asks for.
        """
        found = check(self, uplinks(self.plan))
        self.checked = True
        return found

    def check_programs(self) -> None:
        """Raise `LabError` if the process of a link, a server or a MAT daemon has ended."""
        for program in self._needed:
            program.check("while it was needed")

    def wire(self, name: str) -> Program:
        """The process that impairs the link of this network, server or site."""
        if name not in self._wires:
            known = ", ".join(self._wires) or "none"
            raise LabError(f"no process impairs the link of {name!r}; those of: {known}")
        return self._wires[name]

    def wire_report(self, name: str) -> WireReport:
        """What the process that impairs a link has done so far."""
        wire = self.wire(name)
        count = len(read_reports(wire.text()))
        wire.process.send_signal(signal.SIGUSR1)
        wire.wait_until(lambda text: len(read_reports(text)) > count, "a report")
        return read_reports(wire.text())[-1]

    # ---- nodes and programs --------------------------------------------------------------------

    def ref(self, name: str) -> NodeRef:
        """The namespace of a node, server, access network (its router), `core` or `air`."""
        if name not in self._full:
            raise LabError(f"there is no {name!r} in this lab; there are: {', '.join(self._full)}")
        return NodeRef.parse(f"netns:{self._full[name]}")

    def folder_of(self, name: str) -> Path:
        """The folder of a node's logs and configuration."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def start(
        self, name: str, command: Sequence[str | Path], log: str | Path | None = None, **how: Any
    ) -> Program:
        """Start a program in a node's namespace; the lab ends it by its pid.

        What it prints goes to the file `log` in the node's folder, or else to one named after the
        program. `how` as for `subprocess.Popen`.
        """
        path = self.folder_of(name) / (log or f"{Path(command[0]).name}.log")
        program = Program(self.ref(name), command, path, **how)
        self._programs.append(program)
        return program

    def run(self, name: str, *command: str | Path) -> str:
        """Run a program in a node to its end; what it printed.

        Raises `subprocess.CalledProcessError`.
        """
        return self.ref(name).run(*command)

    def capture(self, name: str, path: Path, *, interface: str = "any", what: str = "") -> Program:
        """Record the packets in a node, or of one of its interfaces, into a pcap file.

        `what` is a filter as in pcap-filter(7). The recording begins before this returns; `stop` of
        the program ends it with the file whole, as does the end of the lab.
        """
        place = (str(self.ref(name).path), interface, str(path.absolute()))
        return self._start_recorder(name, what, place)

    def _start_recorder(self, name: str, what: str, *places: tuple[str, str, str]) -> Program:
        command = [sys.executable, "-S", "-P", recorder.__file__, what, *itertools.chain(*places)]
        program = self.start(name, command, "recorder.log")
        program.wait_for(recorder.READY)
        return program

    def record(self) -> Recording:
        """Record the signalling, the DNS and the probes in all hosts from now on, once in a lab.

        What was recorded makes the tables of a run. `play` begins it at the latest; from before the
        servers start it is whole: then it is known too what each IMS holds.
        """
        if self._recording is None:
            servers = *self.plan.ims, self.plan.dns
            hosts = [*(node.name for node in self.plan.nodes), *(one.name for one in servers)]
            files = {host: self.folder_of(host) / FILE for host in hosts}
            places = [
                (str(self.ref(host).path), recorder.ANY, str(path)) for host, path in files.items()
            ]
            program = self._start_recorder(AIR, WANTED, *places)
            self._needed.append(program)
            whole = not self._serving
            self._recording = Recording(self.plan, program, files, whole=whole)
        return self._recording

    # ---- what serves ---------------------------------------------------------------------------

    def start_dns(self) -> Program:
        """Start the DNS, which knows the IMS of every home address, and wait until it serves."""
        program = self._launch_dns()
        program.wait_for(DNS_READY)
        return program

    def _launch_dns(self) -> Program:
        program = self.start(self.plan.dns.name, dns_command(self.plan), "dns.log")
        self._needed.append(program)
        return program

    def start_servers(self) -> None:
        """Start the DNS and all IMS together, and wait until they serve."""
        program = self._launch_dns()
        self.start_ims()
        program.wait_for(DNS_READY)

    def start_ims(self, *names: str) -> list[Program]:
        """Start IMS, by default all, with keys for all nodes; wait until they serve."""
        self._issue_keys()
        chosen = [one for one in self.plan.ims if not names or one.name in names]
        if unknown := set(names) - {one.name for one in chosen}:
            raise LabError(f"{', '.join(sorted(unknown))}: no IMS of this lab")
        started: list[Program] = []
        self._serving = True
        for server in chosen:
            config = self.folder_of(server.name) / "ims.toml"
            config.write_text(ims_config(self.plan, server, self.control(server.name)))
            started.append(
                self.start(server.name, [*MAT, "ims", "serve", f"--config={config}"], "ims.log")
            )
        for program in started:
            program.wait_for(IMS_READY)
        self._needed += started
        return started

    def control(self, name: str) -> Path:
        """The control socket of an IMS or a MAT node, for `mat ims status`, `mat node status`."""
        return self._sockets / f"{name}.sock"

    def node_config(self, name: str, *, dhcp: bool = True, dataplane: Dataplane = "maps") -> Path:
        """Write the key and the configuration of a MAT node; the configuration's file.

        Without `dhcp` the node asks no DHCP server: its addresses are for others to configure. By
        `dataplane`, the kernel translates, or the node's own process.
        """
        node = self.plan.node(name)
        if node.home is None:
            raise LabError(f"{name} is a host without MAT in this lab")
        self._issue_keys()
        config = self.folder_of(name) / "node.toml"
        control = self.control(name)
        text = node_config(self.plan, node, control, dhcp=dhcp, dataplane=dataplane)
        config.write_text(text)
        return config

    def start_node(self, name: str, *, dhcp: bool = True, dataplane: Dataplane = "maps") -> Program:
        """Start the MAT daemon of a node, `mat node run`, and wait until it serves.

        `dhcp` and `dataplane` as for `node_config`.
        """
        return self.start_nodes([name], dhcp=dhcp, dataplane=dataplane)[0]

    def start_nodes(
        self, names: Iterable[str], *, dhcp: bool = True, dataplane: Dataplane = "maps"
    ) -> list[Program]:
        """Start the MAT daemons of several nodes together, as `start_node` does one."""
        require(PROGRAMS_OF_NODES)
        started: list[Program] = []
        for name in names:
            config = self.node_config(name, dhcp=dhcp, dataplane=dataplane)
            command = [*MAT, "node", "run", f"--config={config}"]
            started.append(self.start(name, command, "node.log"))
        for program in started:
            program.wait_for(NODE_READY, START_TIME + SHARE_TIME * len(started))
        self._needed += started
        return started

    def _issue_keys(self) -> None:
        """A key for each home address, in the file of its IMS and in that of its node; once."""
        if not self._keys_issued:
            issue_keys(self.plan, self.folder_of)
            self._keys_issued = True

    # ---- movement ------------------------------------------------------------------------------

    def attach(self, node: str, network: str, interface: int = 0) -> Move:
        """Give a mobile node's interface a carrier, on an access network."""
        self._mobile(node, interface)
        if (present := self.attached.get((node, interface))) is not None:
            what = f"{node}'s interface {interface} is attached to {present}"
            raise LabError(f"{what}; detach it first")
        there = self._indexes[bridge(self.plan.network(network))]
        return self._move(node, "attach", network, interface, master=there, state="up")

    def detach(self, node: str, network: str, interface: int | None = None) -> Move:
        """Take the carrier from a mobile node's interface; by default, the one on this network."""
        held = [i for (name, i), where in self.attached.items() if (name, where) == (node, network)]
        found = [i for i in held if interface in (None, i)]
        if not found:
            present = [where for (name, _), where in self.attached.items() if name == node]
            what = f"{node} is not attached to {network} there"
            raise LabError(f"{what}; it is attached to: {', '.join(present) or 'nothing'}")
        return self._move(node, "detach", network, found[0], master=0, state="down")

    def configure(self, node: str, interface: int = 0) -> Pair:
        """Give an attached interface its planned addresses, and the best default route.

        This is what DHCP and router advertisements would bring about, for hosts that have neither a
        DHCP client nor MAT. When the interface is detached, they go.
        """
        self._mobile(node, interface)
        if (name := self.attached.get((node, interface))) is None:
            raise LabError(f"{node}'s interface {interface} is attached to nothing")
        moa = self.plan.moa(node, name, interface)
        self._addressing_of(node).configure(interface, self.plan.network(name), moa)
        return moa

    def prefer(self, node: str, network: str) -> Move:
        """Give a node that the lab configured its default route on a network it is attached to."""
        held = [i for (name, i), where in self.attached.items() if (name, where) == (node, network)]
        found = [i for i in held if node in self._addressing and i in self._addressing[node]]
        if not found:
            raise LabError(f"the lab has not configured {node} on {network}")
        self._addressing[node].prefer(found[0], self.plan.network(network))
        self.moves.append(Move(time.monotonic(), node, "prefer", network, found[0]))
        return self.moves[-1]

    def _addressing_of(self, node: str) -> Addressing:
        if node not in self._addressing:
            self._addressing[node] = made = Addressing(self.ref(node))
            self._cleanup.callback(made.close)
        return self._addressing[node]

    def _unconfigure(self, node: str, interface: int) -> None:
        if node in self._addressing and interface in self._addressing[node]:
            self._addressing[node].clear(interface)

    async def play(
        self,
        scenario: Scenario,
        *,
        speed: float = 1.0,
        configured: Collection[str] = (),
        moves: Mobility | None = None,
    ) -> Played:
        """Carry out a scenario's attachment events in real time, `speed` times as fast.

        What is done when is said in `mat_real.lab.play`. Links that were not measured yet are
        measured first. The lab configures the addresses of the nodes `configured`; others see to
        that themselves. `moves` spares reading the movement again. Raises `LabError` if the lab is
        not what was asked for, or if what serves in it or carries a link has ended meanwhile,
        and `ScenarioError` for the movement.
        """
        return await play(self, scenario, speed=speed, configured=configured, moves=moves)

    def probe(
        self,
        node: str,
        peer: str,
        *,
        up: float = 0.02,
        down: float = 0.02,
        size: int = 200,
        family: Literal[4, 6] = 4,
        home: bool = True,
        to: IpAddress | None = None,
    ) -> Stream:
        """Start a stream of probes between a node and a peer, one every `up` and `down` seconds.

        0 is none in that direction; `size` in bytes, headers included. With `home`, both send to
        home addresses. Otherwise the node sends to the address that the peer's site has, or `to`,
        and the peer to where it last heard from.
        """
        options = StreamOptions(up, down, size, family, home, to)
        return Stream(self, node, peer, options)

    def start_traffic(
        self, scenario: Scenario, *, home: bool = True, held: Mobility | None = None
    ) -> list[Stream]:
        """Start the traffic of a scenario, as streams of probes.

        They begin at once. With `held`, the scenario's movement, they begin as the scenario says
        when it is played.
        """
        arrivals = None
        if held is not None:
            first, _ = held.presence()
            arrivals = dict(zip(held.nodes, first, strict=True))
        streams = list(traffic(self, scenario, arrivals, home=home))
        if held is not None:
            self.held += streams
        return streams

    def _mobile(self, name: str, interface: int) -> Node:
        node = self.plan.node(name)
        if not node.mobile:
            raise LabError(f"{name} is no mobile node")
        if not 0 <= interface < node.interfaces:
            what = f"{name} has no interface {interface}"
            raise LabError(f"{what}; it has {node.interfaces}, counted from 0")
        return node

    def _move(
        self, node: str, action: Action, network: str, interface: int, **change: int | str
    ) -> Move:
        index = self._indexes[port(self._mobile(node, interface), interface)]
        self._air.do(lambda: list(self._netlink.link("set", index=index, **change)))
        move = Move(time.monotonic(), node, action, network, interface)
        self.moves.append(move)
        if action == "attach":
            self.attached[node, interface] = network
        else:
            del self.attached[node, interface]
            self._unconfigure(node, interface)
        return move


def _write(settings: Sequence[tuple[str, str]]) -> None:
    for name, value in settings:
        (Path("/proc/sys/net") / name).write_text(value)


@contextmanager
def _undisturbed() -> Generator[None]:
    """Ctrl-C in the block takes effect behind it. Only the main thread is ever interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
