"""MAT as services of CORE 9.2: MAT for nodes, MAT-IMS and MAT-DNS for the servers they need.

In core.conf (/opt/core/etc/core.conf, or /etc/core/core.conf):

    custom_services_dir = /path/to/mat-mobility/real/emulators/core/mat_services

A session takes one node with MAT-IMS, one with MAT-DNS, and any number with MAT: addresses and keys
they find from each other. CORE starts the daemons inside the nodes; their logs are mat-*.log in the
folder of the node, as /tmp/pycore.1/n1.conf. CORE runs in its own Python: this file needs nothing
but CORE, and starts the program `mat`.
"""

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from core.config import ConfigString, Configuration
from core.errors import CoreError
from core.services.base import CoreService

# Waits until the daemon is ready, or has ended: then CORE shows what it said.
_START = """
log=mat-${kind}.log
rm -f mat-${kind}.sock
setsid ${command} > $log 2>&1 < /dev/null &
pid=$!
echo $pid > mat-${kind}.pid
until ${ready}; do
    kill -0 $pid 2> /dev/null || { cat $log >&2; exit 1; }
    sleep 0.1
done
"""
_STOP = """
read pid < mat-${kind}.pid
kill $pid
timeout 15 tail --pid=$pid -f /dev/null || kill -9 $pid
rm mat-${kind}.pid
"""
_keys = threading.Lock()
"""CORE starts nodes at the same time: one makes keys."""


class _MatDaemon:
    """What the services have in common; `kind` is part of the names of their files."""

    kind: str

    def get_text_template(self, name: str) -> str:
        """The text of a file of the service, for Mako."""
        return {"toml": "${toml}", "start.sh": _START, "stop.sh": _STOP}[name.partition(".")[2]]

    def data(self) -> dict[str, Any]:
        """What the templates are filled with."""
        toml = "".join(f"{name} = {value}\n" for name, value in self.fields().items())
        command, ready = self.command(), f"[ -S mat-{self.kind}.sock ]"
        return {"kind": self.kind, "toml": toml, "command": command, "ready": ready}

    def of_session(self, name: str) -> "list[CoreService]":
        """The services of a name in all nodes of the session."""
        nodes = self.node.session.nodes.values()
        return [node.services[name] for node in nodes if name in getattr(node, "services", ())]

    def configured(self, name: str) -> str:
        """A value of the service's configuration."""
        return self.render_config().get(name, "").strip()

    def program(self) -> str:
        """The program `mat`. Raises `CoreError`."""
        return _program(self.configured("mat") or os.environ.get("MAT", ""))

    def address(self) -> str:
        """The first address of the node."""
        for iface in self.node.get_ifaces(control=False):
            if iface.ips():
                return str(iface.ips()[0].ip)
        raise CoreError(f"node({self.node.name}) service({self.name}): the node has no address")

    def name_servers(self) -> str:
        """Those configured, or those of the session, as a list in TOML."""
        given = self.configured("dns").split()
        return str(given or [one.address() for one in self.of_session("MAT-DNS")])

    def make_keys(self) -> None:
        """Make the keys of all nodes of the session that have none. Raises `CoreError`."""
        with _keys:
            made = [one.make_key() for one in self.of_session("MAT")]
        if any(made):
            for server in self.of_session("MAT-IMS"):
                server.read_keys_again()

    def folder(self) -> Path:
        """Where the keys of the session are."""
        return self.node.session.directory / "mat"


class MatService(_MatDaemon, CoreService):
    """The node is a MAT node: reached at its home address, wherever it is linked."""

    name: str = "MAT"
    group: str = "MAT"
    kind: str = "node"
    files: list[str] = ["mat-node.toml", "mat-node.start.sh", "mat-node.stop.sh"]
    startup: list[str] = ["bash mat-node.start.sh"]
    validate: list[str] = ["kill -0 $(cat mat-node.pid)"]
    shutdown: list[str] = ["bash mat-node.stop.sh"]
    default_configs: list[Configuration] = [
        ConfigString(id="home", label="Home address; by default 10.1.x.y by the node's number"),
        ConfigString(id="dns", label="Name servers; by default those with MAT-DNS"),
        ConfigString(id="key", label="Key file; by default made, and known to MAT-IMS"),
        ConfigString(id="options", label="More options of mat node run"),
        ConfigString(id="mat", label="Program mat; by default looked for"),
    ]

    def start(self) -> None:
        """Start the daemon, with a key."""
        self.make_keys()
        CoreService.start(self)

    def home(self) -> str:
        """The home address of the node."""
        number = self.node.id
        return self.configured("home") or f"10.1.{number >> 8 & 255}.{number & 255}"

    def key(self) -> Path:
        """The node's key file."""
        return Path(self.configured("key") or self.folder() / f"{self.node.name}.key")

    def make_key(self) -> bool:
        """Make the node's key, if none is configured or made; whether there is a new one."""
        if self.configured("key") or self.key().exists():
            return False
        self.folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        words = ["key", "new", *self.home().split(), "--keys", self.folder() / "keys", "--out"]
        command = [self.program(), *words, self.key()]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise CoreError(f"node({self.node.name}): {done.stderr.strip()}")
        return True

    def fields(self) -> dict[str, str]:
        """The configuration of the node."""
        control, servers = "'mat-node.sock'", self.name_servers()
        return {"node.key": f"'{self.key()}'", "node.control": control, "dns.servers": servers}

    def command(self) -> str:
        """The daemon."""
        options = self.configured("options")
        return f"{self.program()} node run --config mat-node.toml {options}"


class MatImsService(_MatDaemon, CoreService):
    """The node is the mapping server (IMS) of the session's MAT nodes."""

    name: str = "MAT-IMS"
    group: str = "MAT"
    kind: str = "ims"
    files: list[str] = ["mat-ims.toml", "mat-ims.start.sh", "mat-ims.stop.sh"]
    startup: list[str] = ["bash mat-ims.start.sh"]
    validate: list[str] = ["kill -0 $(cat mat-ims.pid)"]
    shutdown: list[str] = ["bash mat-ims.stop.sh"]
    default_configs: list[Configuration] = [
        ConfigString(id="zones", label="Home prefixes", default="10.1.0.0/16"),
        ConfigString(id="dns", label="Name servers; by default those with MAT-DNS"),
        ConfigString(id="mat", label="Program mat; by default looked for"),
    ]

    def start(self) -> None:
        """Start the daemon, with the keys of all nodes."""
        self.make_keys()
        CoreService.start(self)

    def zones(self) -> list[str]:
        """The home prefixes that it is responsible for."""
        return self.configured("zones").split()

    def read_keys_again(self) -> None:
        """Have the daemon, if it runs, read the file of keys."""
        if (self.node.directory / "mat-ims.pid").exists():
            self.node.cmd("kill -HUP $(cat mat-ims.pid)", shell=True)

    def fields(self) -> dict[str, str]:
        """The configuration of the server."""
        return {
            "ims.zones": str(self.zones()),
            "ims.keys": f"'{self.folder() / 'keys'}'",
            "ims.control": "'mat-ims.sock'",
            "store.path": "'mat-ims.store'",
            "dns.servers": self.name_servers(),
        }

    def command(self) -> str:
        """The daemon."""
        return f"{self.program()} ims serve --config mat-ims.toml"


class MatDnsService(_MatDaemon, CoreService):
    """The node is a DNS server that says which MAT-IMS holds which home addresses."""

    name: str = "MAT-DNS"
    group: str = "MAT"
    kind: str = "dns"
    files: list[str] = ["mat-dns.start.sh", "mat-dns.stop.sh"]
    startup: list[str] = ["bash mat-dns.start.sh"]
    validate: list[str] = ["kill -0 $(cat mat-dns.pid)"]
    shutdown: list[str] = ["bash mat-dns.stop.sh"]
    default_configs: list[Configuration] = [
        ConfigString(id="mat", label="Program mat; by default looked for"),
    ]

    def data(self) -> dict[str, Any]:
        """What the templates are filled with."""
        ready = "grep -q 'Serving on' $log"
        return {"kind": self.kind, "command": self.command(), "ready": ready}

    def command(self) -> str:
        """The daemon: it answers for all addresses, that most are no MAT nodes'."""
        servers = [(one.address(), one.zones()) for one in self.of_session("MAT-IMS")]
        records = [f"{zone}='10 49628 {at}'" for at, zones in servers for zone in zones]
        zones = "--zone in-addr.arpa --zone ip6.arpa"
        words = [f"--record {record}" for record in records]
        return f"{self.program()} dns serve {zones} --listen {self.address()}:53 {' '.join(words)}"


def _program(named: str) -> str:
    """The program `mat`: the one named, or that of the checkout or venv of this file."""
    folders = Path(__file__).resolve().parents
    near = [folder / place for folder in folders for place in (".venv/bin/mat", "bin/mat")]
    for place in [named] if named else [*near, "mat"]:
        found = shutil.which(str(place))
        if found:
            return found
    where = named or f"`mat` near {__file__} or on the PATH"
    mend = "`make real` in the checkout makes it; name it in the service's configuration"
    raise CoreError(f"there is no program {where}: {mend}")
