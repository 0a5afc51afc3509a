"""MAT in Mininet: hosts whose connections survive a move, and the servers that they need.

    sudo mn --custom mat_mininet.py --topo mat --host mat --switch lxbr --controller none

or in a script, which `handover.py` beside this file shows:

    net.addHost("mn", cls=MatHost, home="10.1.0.1", ip="192.168.1.10/24", ...)
    net.addHost("ims", cls=ImsHost, zones="10.1.0.0/16", ip="192.168.9.2/24", ...)
    net.addHost("dns", cls=DnsHost, ip="192.168.9.3/24", ...)

Mininet runs under the system's Python, MAT in a virtual environment of its own. So this file needs
Mininet and the standard library alone, and starts the program `mat attach` for each host: in the
network namespace of the host's shell, when Mininet configures the host. The daemons end with their
hosts, and with the process that runs Mininet, however it ends. Configurations, keys and logs are in
one folder, that of MAT_FOLDER, or a new one whose name is printed.

`mn --custom` makes every global name of this file one of its own: none here is one of `mn`'s.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from mininet.log import info
from mininet.node import Host, Node
from mininet.topo import Topo

_START_LIMIT = 60
"""Seconds for a daemon to be ready, on a machine where much else goes on."""
_STOP_LIMIT = 15
_running = []
"""The hosts whose daemons run, in the order in which they were started."""
_hosts = []
"""All hosts of this file's classes that have not been terminated."""


class MatError(Exception):
    """What keeps a host from being a MAT host; says how to mend it."""


class MatDaemonHost(Host):
    """A host with a daemon, one of `mat attach`'s roles. Its namespace is that of its shell."""

    role = ""

    def __init__(self, name, **params):
        self.daemon = None
        self.address = params.get("ip", "").split("/")[0]
        _program()
        Host.__init__(self, name, **params)
        _hosts.append(self)

    def config(self, **params):
        """Configure the host as Mininet does, and then start its daemon, once."""
        result = Host.config(self, **params)
        if self.daemon is None:
            self.start_daemon()
        return result

    def terminate(self):
        """End the daemon, then the host."""
        self.stop_daemon()
        if self in _hosts:
            _hosts.remove(self)
        Host.terminate(self)

    def options(self):
        """The options of the daemon."""
        raise NotImplementedError

    def is_ready(self):
        """Whether the daemon has started."""
        return self.file("sock").exists()

    def file(self, kind):
        """A file of this host: NAME.log, .toml, .sock."""
        return _folder() / f"{self.name}.{kind}"

    def start_daemon(self):
        """Start the daemon, and wait until it is ready. Raises `MatError` with what it says."""
        if self.file("sock").exists():
            self.file("sock").unlink()  # left by one that was killed
        command = [_program(), "attach", "--ns", f"pid:{self.pid}", "--role", self.role]
        with self.file("log").open("wb") as log:
            self.daemon = subprocess.Popen(
                [*_tied_to_this_process(), *command, *self.options()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at Mininet's prompt is not for daemons
            )
        _running.append(self)
        self._wait_until_ready()

    def _wait_until_ready(self):
        end = time.monotonic() + _START_LIMIT
        while not self.is_ready():
            code = self.daemon.poll()
            if code is not None or time.monotonic() > end:
                what = "is not ready" if code is None else f"ended at once, with exit code {code}"
                self.stop_daemon()
                said = self.file("log").read_text(errors="replace").strip()
                raise MatError(f"{self.name}: `mat attach` {what} ({self.file('log')}):\n{said}")
            time.sleep(0.05)

    def stop_daemon(self):
        """End the daemon, which takes away what it installed."""
        if self in _running:
            _running.remove(self)
            self.daemon.terminate()
            try:
                self.daemon.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
            self.daemon = None


class MatHost(MatDaemonHost):
    """A MAT node, mobile or not: reached at its home address, wherever it is.

    home: its home address; one of each family with a blank between them. `{}` in it stands for the
        number in the host's name, for `mn --host mat,home=10.1.0.{}`.
    dns: name servers, with blanks between them; by default, those of the `DnsHost`s of this net.
    key: its key file; by default, one is made, which the `ImsHost`s of this net accept.
    settings: more fields of its configuration (docs/node.md), as {"node.dataplane": "queue"}.
    """

    role = "mn"

    def __init__(self, name, home=None, dns="", key=None, settings=None, **params):
        if not home:
            raise MatError(f"{name}: a MatHost has a home address: home='10.1.0.1'")
        number = "".join(filter(str.isdigit, name))
        self.homes = home.format(number).split()
        self.dns = dns
        self.settings = settings or {}
        MatDaemonHost.__init__(self, name, **params)
        self.key = Path(key).resolve() if key else self._new_key()

    def _new_key(self):
        # By its home address: another net of this process may have another host of this name.
        path = _folder() / ("_".join(self.homes).replace(":", "-").replace("/", "-") + ".key")
        if not path.exists():
            _mat("key", "new", *self.homes, "--keys", _folder() / "keys", "--out", path)
            for server in _running:
                if isinstance(server, ImsHost):
                    server.daemon.send_signal(signal.SIGHUP)  # it reads the keys again
        return path

    def options(self):
        """Those of `mat node run`, in a file."""
        fields = {
            "node.key": str(self.key),
            "node.control": str(self.file("sock")),
            "dns.servers": _name_servers(self.dns),
            **self.settings,
        }
        _write(self.file("toml"), fields)
        return ["--config", self.file("toml")]

    def status(self):
        """What `mat node status --json` says: uplinks, registration, peers, packets."""
        return json.loads(_mat("node", "status", "--json", "--control", self.file("sock")))

    def is_registered(self):
        """Whether the mapping server has the mobile addresses that the host has now."""
        homes = self.status()["homes"]
        return all(home["registered"] == home["addresses"] != [] for home in homes)

    def wait_registered(self, seconds=60):
        """Wait until the host is registered where it is. Raises `MatError`."""
        end = time.monotonic() + seconds
        while not self.is_registered():
            if time.monotonic() > end:
                raise MatError(f"{self.name}: not registered after {seconds} s: {self.status()}")
            time.sleep(0.2)

    def move(self, net, switch, ip, via):
        """Unplug the host's links and plug it into a switch, with an address and a gateway there.

        The interface is another one after that, under the same name.
        """
        for link in [one.link for one in self.intfList() if one.link]:
            net.delLink(link)
        link = net.addLink(self, switch)
        if hasattr(switch, "attach"):
            switch.attach(link.intf2)
        else:
            switch.cmd("brctl addif", switch, link.intf2)
        self.setIP(ip, intf=link.intf1)
        self.setDefaultRoute(f"via {via}")


class ImsHost(MatDaemonHost):
    """A mapping server (IMS), for the home addresses of its zones.

    zones: home prefixes, with blanks between them.
    dns: as for `MatHost`.
    settings: more fields of the server's configuration (docs/ims.md).
    """

    role = "ims"

    def __init__(self, name, zones=None, dns="", settings=None, **params):
        if not zones:
            raise MatError(f"{name}: an ImsHost has zones: zones='10.1.0.0/16'")
        self.zones = zones.split()
        self.dns = dns
        self.settings = settings or {}
        MatDaemonHost.__init__(self, name, **params)

    def options(self):
        """Those of `mat ims serve`, in a file."""
        fields = {
            "ims.zones": self.zones,
            "ims.keys": str(_folder() / "keys"),
            "ims.control": str(self.file("sock")),
            "store.path": str(self.file("store")),
            "dns.servers": _name_servers(self.dns),
            **self.settings,
        }
        _write(self.file("toml"), fields)
        return ["--config", self.file("toml")]


class DnsHost(MatDaemonHost):
    """A DNS server that says which `ImsHost` of this net holds which home addresses.

    It answers for all addresses there are: that the others are no MAT nodes.
    """

    role = "dns"

    def options(self):
        """Those of `mat dns serve`."""
        servers = [host for host in _hosts if isinstance(host, ImsHost)]
        records = [f"{zone}=10 49628 {ims.address}" for ims in servers for zone in ims.zones]
        zones = ["--zone", "in-addr.arpa", "--zone", "ip6.arpa", "--listen", f"{self.address}:53"]
        return [*zones, *(word for record in records for word in ("--record", record))]

    def is_ready(self):
        """Whether it says that it serves."""
        return b"Serving on" in self.file("log").read_bytes()


class LinuxRouter(Node):
    """A router between the networks of its interfaces."""

    def config(self, **params):
        """Configure the node as Mininet does, and have it forward."""
        result = Node.config(self, **params)
        self.cmd("sysctl -w net.ipv4.ip_forward=1")
        return result


class MatTopo(Topo):
    """A mobile node, two access networks for it, a router, a correspondent, IMS and DNS.

        mn ---- s1        s3 ---- cn, ims, dns
                  \\      /
                   r ---
                  /
                s2

    s1 is 192.168.1.0/24, s2 192.168.2.0/24, s3 192.168.9.0/24; the router is .1 in each.
    """

    def build(self, **_opts):
        """Add hosts, switches and links. The hosts are of the class that `Mininet` was given."""
        router = self.addNode("r", cls=LinuxRouter, ip="192.168.1.1/24")
        for number, net in ((1, 1), (2, 2), (3, 9)):
            switch = self.addSwitch(f"s{number}")
            self.addLink(router, switch, params1={"ip": f"192.168.{net}.1/24"})
        at_s3 = {"defaultRoute": "via 192.168.9.1"}
        zones = "10.1.0.0/16 10.2.0.0/16"
        self.addHost("dns", cls=DnsHost, ip="192.168.9.3/24", **at_s3)
        self.addHost("ims", cls=ImsHost, zones=zones, ip="192.168.9.2/24", **at_s3)
        self.addHost("cn", home="10.2.0.1", ip="192.168.9.10/24", **at_s3)
        mobile = {"ip": "192.168.1.10/24", "defaultRoute": "via 192.168.1.1"}
        self.addHost("mn", home="10.1.0.1", **mobile)
        for host, switch in (("mn", "s1"), ("cn", "s3"), ("ims", "s3"), ("dns", "s3")):
            self.addLink(host, switch)


hosts = {"mat": MatHost, "ims": ImsHost, "dns": DnsHost}
topos = {"mat": MatTopo}


def _program():
    """The program `mat`: MAT in the environment, or that of the checkout or venv of this file."""
    named = os.environ.get("MAT")
    if named:
        found = shutil.which(named)
        if not found:
            raise MatError(f"MAT={named} is no program that can be run")
        return found
    # `mn --custom` executes this file's text, without __file__.
    for folder in Path(_program.__code__.co_filename).resolve().parents:
        for place in (folder / ".venv/bin/mat", folder / "bin/mat"):
            if os.access(str(place), os.X_OK):
                return str(place)
    found = shutil.which("mat")
    if not found:
        mend = "`make real` in the checkout makes it, or name it: MAT=/path/to/.venv/bin/mat"
        raise MatError(f"there is no program `mat` near this file or on the PATH: {mend}")
    return found


def _mat(*words):
    """What a command of `mat` prints. Raises `MatError` with what it says."""
    command = [_program(), *map(str, words)]
    done = subprocess.run(command, env=_environment(), check=False, capture_output=True, text=True)
    if done.returncode:
        raise MatError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _environment():
    """That of this process, but for what leads its Python to modules: `mat` runs in another."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


_made_folder = []


def _folder():
    """Where configurations, keys and logs of this process's hosts are."""
    if not _made_folder:
        named = os.environ.get("MAT_FOLDER")
        if named:
            Path(named).mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(named or tempfile.mkdtemp(prefix="mat-mininet-")).resolve()
        info(f"*** MAT: configurations, keys and logs are in {folder}\n")
        _made_folder.append(folder)
    return _made_folder[0]


def _write(path, fields):
    """A configuration, from fields by their full names."""
    # A JSON string, number, truth or list of them is one of TOML, too.
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))


def _name_servers(named):
    return named.split() or [host.address for host in _hosts if isinstance(host, DnsHost)]


def _tied_to_this_process():
    """A prefix for a command: it is told to end when this process is gone, even if killed.

    Linux ties it to the thread that starts it: other threads may end before the process does.
    """
    if threading.current_thread() is threading.main_thread():
        return ["setpriv", "--pdeathsig", "TERM", "--"]
    return []


@atexit.register
def _stop_all():
    while _running:
        _running[-1].stop_daemon()
