"""Nodes as network namespaces: named, entered, made and removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mat_real.namespaces import NamespaceError, NodeRef, create, namespaces
from tests.real.privilege import needs_root

NAME = f"mat-test-{os.getpid()}"
ENTER = (
    "import sys, os; from mat_real.namespaces import NodeRef; NodeRef.parse(sys.argv[1]).enter(); "
)
INODE = "print(os.stat('/proc/self/ns/net').st_ino)"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("netns:blue", "/run/netns/blue"),
        ("pid:17", "/proc/17/ns/net"),
        ("path:/var/run/docker/netns/1", "/var/run/docker/netns/1"),
    ],
)
def test_a_node_is_named_in_three_ways(text: str, path: str) -> None:
    assert NodeRef.parse(text) == NodeRef(text, Path(path))


@pytest.mark.parametrize("text", ["", "blue", "netns:", "netns:..", "netns:a/b", "pid:x", "path:"])
def test_other_names_are_refused_with_the_right_ones(text: str) -> None:
    with pytest.raises(ValueError, match="say netns:NAME, pid:NUMBER or path:FILE"):
        NodeRef.parse(text)


def test_a_namespace_that_is_not_there_is_named() -> None:
    with pytest.raises(NamespaceError, match=r"netns:no-such: there is no such namespace"):
        NodeRef.parse("netns:no-such").enter()


@needs_root
def test_the_three_ways_lead_to_the_same_namespace() -> None:
    with namespaces(NAME) as (node,):
        inside = node.popen(["sleep", "60"])
        try:
            refs = [node.text, f"pid:{inside.pid}", f"path:{node.path}"]
            # The process is there at once, its namespace only once nsenter has entered.
            while Path(f"/proc/{inside.pid}/comm").read_text() != "sleep\n":
                pass
            inodes = {
                subprocess.run(
                    [sys.executable, "-c", ENTER + INODE, ref],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
                for ref in refs
            }
        finally:
            inside.kill()
            inside.wait()
        assert inodes == {f"{node.path.stat().st_ino}\n"}
        assert inodes != {f"{Path('/proc/self/ns/net').stat().st_ino}\n"}


@needs_root
def test_namespaces_end_with_the_block_and_loopback_is_up_until_then() -> None:
    with namespaces(NAME, NAME + "b") as (one, other):
        assert "LOWER_UP" in one.run("ip", "link", "show", "lo")
        assert other.path.exists()
    assert not one.path.exists()
    assert not other.path.exists()


@needs_root
def test_a_name_that_is_taken_is_refused_and_what_was_made_before_it_goes() -> None:
    with namespaces(NAME) as (node,):
        with pytest.raises(NamespaceError, match=f"namespace {NAME} cannot be made"):
            create(NAME)
        with pytest.raises(NamespaceError), namespaces(NAME + "b", NAME):
            pass
        assert not node.path.with_name(NAME + "b").exists()
        assert node.path.exists()
