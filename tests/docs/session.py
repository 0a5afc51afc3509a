"""Runs the blocks of one page, in order: `python -m tests.docs.session PAGE`.

It is started in an empty folder, as process 1 of namespaces of its own. The folder is made to look
like a checkout after `make real`: the project's folders, and `.venv/bin` with programs that stand
for those which would change the machine. A server goes to the background when it is ready, and
ends, in good order, with the page. `short.toml` is there for labs, which play in real time: one
handover after two seconds; and `town` is a few vehicles for a minute.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.docs.pages import ROOT, Block, blocks

PATIENCE: Final = 40.0
"""Seconds for a server to end, on a machine where much else goes on."""
SHORT: Final = """t,node,action,network
0,m1,attach,A
2,m1,detach,A
2,m1,attach,B
"""
FOLDERS: Final = ("real", "sim", "tests", "wireshark")
SERVERS: Final = "servers"

# Waits for the line by which daemons say that they are at work.
MAT: Final = """#!/bin/bash
run() {{ exec {python} -m mat_cli "$@"; }}
case "$1 $2 $*" in
    *--check* | *--example* | *--help*) run "$@" ;;
    "ims serve "* | "node run "* | "dns serve "*) ;;
    *) run "$@" ;;
esac
log=$(mktemp {folder}/log.XXXXXX)
run "$@" >"$log" 2>&1 &
echo $! >>{folder}/{servers}
until grep -qiw -e serving -e running "$log"; do
    sleep 0.1
    kill -0 $! 2>/dev/null || {{ cat "$log" >&2; exit 1; }}
done
"""
STANDINS: Final = {
    "mat": MAT,
    "activate": 'PATH="{folder}/.venv/bin:$PATH"\n',
    "sudo": '#!/bin/sh\nexec "$@"\n',
    "apt": "#!/bin/sh\n",  # test_commands.py looks whether CI installs the packages
    "make": '#!/bin/sh\nexec /usr/bin/make --dry-run --directory {root} "$@" >/dev/null\n',
}


def furnish(folder: Path) -> None:
    """Make the folder look like a checkout that is set up."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in STANDINS.items():
        program = programs / name
        program.write_text(
            text.format(python=sys.executable, folder=folder, root=ROOT, servers=SERVERS)
        )
        program.chmod(0o755)
    for name in FOLDERS:
        if (ROOT / name).is_dir():
            (folder / name).symlink_to(ROOT / name)
    (folder / SERVERS).touch()
    scenarios = ROOT / "sim" / "scenarios"
    first = (scenarios / "first.toml").read_text().replace("first.csv", "short.csv")
    (folder / "short.toml").write_text(first.replace("duration = 40.0", "duration = 5.0"))
    (folder / "short.csv").write_text(SHORT)
    town = (scenarios / "town.toml").read_text().replace("[nodes]", "[nodes]\ncount = 20")
    (folder / "town").write_text(town.replace("duration = 300.0", "duration = 60.0"))
    (folder / "town.fcd.xml.gz").symlink_to(scenarios / "town.fcd.xml.gz")


def shell(block: Block) -> None:
    """Run a block by bash; the first command that fails ends it."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.before + block.code],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{block.place}: exit code {done.returncode}")


def python(block: Block, names: dict[str, Any]) -> None:
    """Run a block with the names of the page's earlier ones; a traceback has the page's lines."""
    exec(compile(block.before, f"<before {block.place}>", "exec"), names)
    shift = "\n" * (block.line - 1)
    exec(compile(shift + block.code, str(ROOT / block.page), "exec"), names)


def run(page: str) -> None:
    """Run what is to be run of a page."""
    names: dict[str, Any] = {"__name__": "__page__"}
    for block in (block for block in blocks(page) if block.run_here):
        sys.stdout.write(f"==> {block.place}\n")
        sys.stdout.flush()
        if block.language == "python":
            python(block, names)
        else:
            shell(block)


def end_servers(folder: Path) -> None:
    """SIGTERM for each server, and wait for it: having lost its parent, it is process 1's child."""
    for pid in map(int, (folder / SERVERS).read_text().split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        ended, status = os.waitpid(pid, os.WNOHANG)
        while not ended and time.monotonic() < until:
            time.sleep(0.05)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended or status:
            sys.exit(f"a server of the page did not end in good order: {status}")


def main() -> None:
    """Run a page in the working directory."""
    folder = Path.cwd()
    furnish(folder)
    os.environ["HOME"] = str(folder)
    os.environ["PATH"] = f"{folder}/.venv/bin:{os.environ['PATH']}"
    try:
        run(sys.argv[1])
    finally:
        end_servers(folder)


if __name__ == "__main__":
    main()
