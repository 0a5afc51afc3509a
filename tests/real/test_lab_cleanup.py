"""A lab leaves nothing, however it ends, and touches no other."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mat_real.lab import Lab, LabError, leftovers, remove_leftovers, simple_plan
from mat_real.lab.state import RUN, namespaces_of, processes_in
from tests.real.ims_server import alive, wait_until
from tests.real.key_files import environment
from tests.real.privilege import needs_root

pytestmark = needs_root

CHILD = """
import sys, time
SLOW = "trap 'echo asked; sleep 0.5; exit' TERM; echo trapped; while :; do sleep 0.01; done"
from mat_real.lab import Lab, simple_plan
with Lab(simple_plan(["A"])) as lab:
    program = lab.start("CN", ["sh", "-c", "sleep 600 & echo $!; exec sleep 600"], "sleep.log")
    program.wait_for(chr(10))
    slow = lab.start("CN", ["sh", "-c", SLOW], "slow.log")
    slow.wait_for("trapped")
    print(lab.name, program.pid, program.text().strip(), lab.folder, flush=True)
    time.sleep(600)
"""


class Other:
    """A lab in a process of its own, with a program in CN and a child of that."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self.process.stdout is not None
        self.name, program, child, folder = self.process.stdout.readline().split()
        self.pids = [int(program), int(child)]
        self.folder = Path(folder)

    def is_gone(self) -> bool:
        """Whether neither namespaces, processes nor files of it are left."""
        return (
            not namespaces_of(self.name)
            and not any(map(alive, self.pids))
            and not self.folder.exists()
            and not (RUN / self.name).exists()
        )


@contextmanager
def other_lab() -> Generator[Other]:
    other = Other()
    try:
        yield other
    finally:
        other.process.kill()
        other.process.communicate()
        if (RUN / other.name).exists():
            remove_leftovers()


def test_nothing_is_left_after_an_exception() -> None:
    pids: list[int] = []

    def fail_in(lab: Lab) -> None:
        lab.start("CN", ["sh", "-c", "sleep 600 & exec sleep 600"])
        wait_until(lambda: len(processes_in([lab.ref("CN")])) == 2)
        pids.extend(processes_in([lab.ref("CN")]))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), Lab(simple_plan(["A"])) as lab:
        fail_in(lab)
    assert not namespaces_of(lab.name)
    assert pids
    assert not any(map(alive, pids))
    assert not lab.folder.exists()
    assert not (RUN / lab.name).exists()


def test_nothing_is_left_of_a_lab_that_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dnsmasq").write_text("#!/bin/sh\necho no luck; exit 3\n")
    (tmp_path / "dnsmasq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lab = Lab(simple_plan(["A"]))
    with pytest.raises(LabError, match=r"dnsmasq in .* ended with 3 before .*\nno luck"):
        lab.build()
    assert not namespaces_of(lab.name)
    assert not (RUN / lab.name).exists()


def test_ctrl_c_ends_a_lab_in_order() -> None:
    with other_lab() as other:
        assert not other.is_gone()
        other.process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in other.process.communicate(timeout=60)[1]
        assert other.is_gone()


def test_a_second_ctrl_c_while_programs_end_does_not_disturb_the_cleaning() -> None:
    with other_lab() as other:
        other.process.send_signal(signal.SIGINT)
        wait_until(lambda: "asked" in (other.folder / "CN" / "slow.log").read_text())
        other.process.send_signal(signal.SIGINT)
        other.process.communicate(timeout=60)
        assert other.is_gone()


def test_what_a_killed_lab_left_is_found_and_removed_and_no_other_lab_is_touched() -> None:
    with other_lab() as other, Lab(simple_plan(["A"])) as mine, other_lab() as third:
        assert not {other.name, mine.name, third.name} & {left.name for left in leftovers()}
        other.process.kill()
        other.process.wait()
        (left,) = [left for left in leftovers() if left.name == other.name]
        assert left.namespaces == tuple(namespaces_of(other.name))
        assert f"{other.name}-core" in left.namespaces
        assert all(map(alive, other.pids))
        assert other.name in [removed.name for removed in remove_leftovers()]
        assert other.is_gone()
        assert all(map(alive, third.pids))
        assert "192.0.2.53" in mine.run("DNS", "ip", "addr")
        assert third.name not in [left.name for left in leftovers()]
        assert len(namespaces_of(mine.name)) == len(namespaces_of(third.name))


def test_labs_of_one_process_stand_side_by_side() -> None:
    with Lab(simple_plan(["A"])) as one:
        with Lab(simple_plan(["A"])) as two:
            two.attach("MN", "A")
            two.configure("MN")
            assert "64 bytes" in two.run("MN", "ping", "-c1", "192.0.2.53")
        assert not namespaces_of(two.name)
        one.attach("MN", "A")
        one.configure("MN")
        assert "64 bytes" in one.run("MN", "ping", "-c1", "192.0.2.53")
