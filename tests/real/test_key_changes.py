"""Changes of key files: what they do, what they leave as it was, and what happens on the way."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from mat_real.key_changes import NodeFile, new_keys, revoke_home, revoke_id, rotate
from mat_real.key_file import (
    LAST_ID,
    KeyFileError,
    parse_home,
    parse_line,
)
from mat_real.keys import load
from tests.real.key_files import (
    HOME,
    NOW,
    SECRET,
    VAN,
    beside,
    environment,
    mode,
    needs_root,
    put,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


# ---- changes -------------------------------------------------------------------------------------


def test_a_new_key_is_in_a_file_that_only_its_owner_can_read(path: Path) -> None:
    umask = os.umask(0)
    try:
        made = new_keys(path, [HOME], NOW)
    finally:
        os.umask(umask)
    (line,) = made.lines
    assert path.read_text().splitlines()[1:] == [line]
    assert mode(path) == 0o600
    entry = parse_line(line)
    assert entry is not None
    assert entry.home == HOME
    assert len(entry.secret) == 32
    assert load(path)(made.ids[0]) == entry.key()
    assert beside(path) == []


def test_two_keys_are_never_alike(path: Path) -> None:
    new_keys(path, [HOME, VAN], NOW)
    rotate(path, HOME, 60, NOW)
    assert len({entry.secret for entry in load(path).entries()}) == 3


def test_the_nodes_own_file_has_the_key_alone(path: Path) -> None:
    node = path.with_name("node.key")
    new_keys(path, [VAN], NOW)
    made = new_keys(path, [HOME], NOW, node_file=NodeFile(node))
    assert mode(node) == 0o600
    assert node.read_text() == f"{made.lines[0]}\n"
    assert list(load(node).entries()) == [*load(path).entries()][1:]


def test_what_a_change_is_not_about_stays_as_it_was(path: Path) -> None:
    before = (
        b"\xef\xbb\xbf# caf\xe9\r\n\r\n9 10.1.2.9  " + SECRET.encode() + b"\t# nine\r\n"
        b"\n   7 10.1.2.3 " + SECRET.encode() + b"  # seven\r\n"
        b"17 10.1.2.17 " + SECRET.encode()
    )
    put(path, before)
    (made,) = new_keys(path, [VAN], NOW).lines
    assert path.read_bytes() == before + f"\n{made}\n".encode()
    done = rotate(path, HOME, 1.5, NOW)
    after = before.replace(b"   7 10", b"7 10").replace(
        b"  # seven", b" until=2027-01-15T08:00:02Z  # seven"
    )
    assert path.read_bytes() == after + f"\n{made}\n{done.line}\n".encode()
    revoke_id(path, 7, NOW)
    kept = [line for line in after.splitlines(keepends=True) if b"seven" not in line]
    assert path.read_bytes() == b"".join(kept) + f"\n{made}\n{done.line}\n".encode()


def test_the_first_line_is_changed_in_spite_of_its_byte_order_mark(path: Path) -> None:
    put(path, f"\ufeff7 10.1.2.3 {SECRET}\n")
    rotate(path, HOME, 60, NOW)
    assert path.read_text().startswith(f"\ufeff7 10.1.2.3 {SECRET} until=2027-01-15T08:01:00Z\n")
    revoke_id(path, 7, NOW)
    assert [entry.key_id for entry in load(path).entries()] == [8]


def test_an_id_can_be_chosen_if_it_is_free(path: Path) -> None:
    assert new_keys(path, [HOME], NOW, first_id=100).ids == range(100, 101)
    assert new_keys(path, [VAN, parse_home("10.1.2.4")], NOW, first_id=0).ids == range(2)
    before = path.read_bytes()
    more = [parse_home("10.1.2.5"), parse_home("10.1.2.6")]
    for first, what in ((99, "key 100 is that of 10.1.2.3"), (LAST_ID, "would go beyond")):
        with pytest.raises(KeyFileError, match=what):
            new_keys(path, more, NOW, first_id=first)
    assert path.read_bytes() == before
    assert new_keys(path, more, NOW).ids == range(101, 103)


def test_a_home_with_a_valid_key_gets_none_but_by_rotation(path: Path) -> None:
    new_keys(path, [HOME], NOW)
    before = path.read_bytes()
    for node_file in (None, NodeFile(path.with_name("node.key"), overwrite=True)):
        with pytest.raises(
            KeyFileError,
            match=r"10\.1\.2\.3 has key 1 already; `mat key rotate 10\.1\.2\.3` replaces it$",
        ):
            new_keys(path, [VAN, HOME], NOW, node_file=node_file)
    with pytest.raises(KeyFileError, match="it is named twice"):
        new_keys(path, [VAN, VAN], NOW)
    assert path.read_bytes() == before
    assert beside(path) == []
    rotate(path, HOME, 60, NOW)
    with pytest.raises(
        KeyFileError, match=r"is being rotated already: keys 1 and 2 are valid; `ma"
    ):
        new_keys(path, [HOME], NOW)


def test_a_home_whose_keys_have_ended_gets_a_new_one(path: Path) -> None:
    put(path, f"7 10.1.2.3 {SECRET} until=2027-01-15T08:00:00Z\n")
    assert new_keys(path, [HOME], NOW).ids == range(8, 9)


def test_in_a_rotation_both_keys_are_valid_and_then_the_new_one(path: Path) -> None:
    old = new_keys(path, [HOME], NOW).ids[0]
    done = rotate(path, HOME, 3600, NOW)
    assert (done.old_id, done.until, done.removed) == (old, NOW + 3600, ())
    for now, valid in ((NOW + 3599, [old, done.key_id]), (NOW + 3600, [done.key_id])):
        ring = load(path, lambda now=now: now)  # type: ignore[misc]
        assert [i for i in (old, done.key_id) if ring(i) is not None] == valid


def test_a_rotation_waits_for_the_end_of_the_one_before(path: Path) -> None:
    new_keys(path, [HOME], NOW)
    first = rotate(path, HOME, 3600, NOW)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="being rotated already: keys 1 and 2 are valid"):
        rotate(path, HOME, 3600, NOW + 3599)
    assert path.read_bytes() == before
    second = rotate(path, HOME, 3600, NOW + 3600)
    assert (second.old_id, second.removed) == (first.key_id, (first.old_id,))
    assert [entry.key_id for entry in load(path).entries()] == [2, 3]


def test_a_rotation_never_makes_a_key_last_longer(path: Path) -> None:
    put(path, f"7 10.1.2.3 {SECRET} until=2027-01-15T08:00:05Z\n")
    assert rotate(path, HOME, 3600, NOW).until == NOW + 5


def test_there_is_no_rotation_without_a_valid_key(path: Path) -> None:
    put(path, f"7 10.1.2.3 {SECRET} until=2027-01-15T08:00:00Z\n8 10.1.4.0/24 {SECRET}\n")
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match=r"10\.1\.2\.3 has no valid key to rotate"):
        rotate(path, HOME, 3600, NOW)
    assert path.read_bytes() == before


def test_keys_are_revoked_by_id_or_all_of_a_home(path: Path) -> None:
    new_keys(path, [HOME, VAN], NOW)
    rotate(path, HOME, 60, NOW)
    revoke_id(path, 1, NOW)
    assert [entry.key_id for entry in load(path).entries()] == [2, 3]
    rotate(path, HOME, 60, NOW)
    assert revoke_home(path, HOME, NOW) == [3, 4]
    assert list(load(path).homes()) == [VAN]


def test_what_is_not_there_cannot_be_revoked(path: Path) -> None:
    new_keys(path, [HOME], NOW)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="has no key 11"):
        revoke_id(path, 11, NOW)
    with pytest.raises(KeyFileError, match=r"has no key for 10\.1\.4\.0/24"):
        revoke_home(path, VAN, NOW)
    assert path.read_bytes() == before


def test_only_a_new_key_makes_a_missing_file(path: Path) -> None:
    for change in (
        lambda: rotate(path, HOME, 60, NOW),
        lambda: revoke_id(path, 7, NOW),
        lambda: revoke_home(path, HOME, NOW),
    ):
        with pytest.raises(KeyFileError, match="does not exist"):
            change()
    assert not path.exists()


def test_a_missing_folder_is_not_made(path: Path) -> None:
    with pytest.raises(
        KeyFileError, match=f"{path}: does not exist; run: install -d -m 755 {path}"
    ):
        new_keys(path / "keys", [HOME], NOW)
    put(path, "")
    with pytest.raises(KeyFileError, match=f"{path}: is no directory that can be opened"):
        new_keys(path / "keys", [HOME], NOW)


def test_a_file_that_is_refused_is_not_changed(path: Path) -> None:
    for text, permissions in ((f"7 10.1.2.3 {SECRET}\n", 0o644), ("garbled\n", 0o600)):
        put(path, text, permissions)
        with pytest.raises(KeyFileError):
            new_keys(path, [VAN], NOW)
        assert path.read_text() == text


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path.symlink_to(folder / "keys")
    new_keys(path, [HOME], NOW)
    new_keys(path, [VAN], NOW)
    assert path.is_symlink()
    assert len(load(folder / "keys")) == 2
    assert beside(folder / "keys") == []


def test_a_link_that_leads_round_in_a_circle_is_refused(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(KeyFileError, match=str(path)):
        new_keys(path, [HOME], NOW)


def test_a_nodes_file_is_replaced_only_by_force(path: Path) -> None:
    node = put(path.with_name("node.key"), f"7 10.1.2.3 {SECRET}\n")
    with pytest.raises(KeyFileError, match=r"node\.key: exists already; --force replaces it"):
        new_keys(path, [HOME], NOW, node_file=NodeFile(node))
    assert not path.exists()
    assert SECRET in node.read_text()
    new_keys(path, [HOME], NOW, node_file=NodeFile(node, overwrite=True))
    assert [*load(node).entries()] == [*load(path).entries()]
    assert beside(path) == ["node.key"]


def test_a_link_in_the_place_of_a_nodes_file_is_not_followed(path: Path, tmp_path: Path) -> None:
    node = tmp_path / "node.key"
    node.symlink_to(tmp_path / "target")
    with pytest.raises(KeyFileError, match="exists already"):
        new_keys(path, [HOME], NOW, node_file=NodeFile(node))
    assert not (tmp_path / "target").exists()


def test_not_even_force_replaces_what_is_no_file_or_is_the_servers(path: Path) -> None:
    new_keys(path, [HOME], NOW)
    before = path.read_bytes()
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    for other, what in (
        (fifo, "is no regular file"),
        (path.parent, "is no regular file"),
        (path, "is the server's key file"),
    ):
        with pytest.raises(KeyFileError, match=what):
            rotate(path, HOME, 60, NOW, NodeFile(other, overwrite=True))
    assert path.read_bytes() == before
    assert fifo.is_fifo()


def test_without_a_place_for_the_nodes_file_nothing_changes(path: Path, tmp_path: Path) -> None:
    new_keys(path, [HOME], NOW)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match=r"node.key: cannot be written \(No such file"):
        rotate(path, HOME, 60, NOW, NodeFile(tmp_path / "missing" / "node.key"))
    assert path.read_bytes() == before
    assert beside(path) == []


def test_what_a_crash_left_behind_is_replaced(path: Path) -> None:
    left = put(path.with_name(".keys.new"), "half a fi", 0o644)
    new_keys(path, [HOME], NOW)
    assert len(load(path)) == 1
    assert mode(path) == 0o600
    assert not left.exists()


def test_a_directory_in_the_way_is_named(path: Path) -> None:
    path.with_name(".keys.new").mkdir()
    with pytest.raises(KeyFileError, match=r"keys: cannot be changed: .*\.keys\.new is in the way"):
        new_keys(path, [HOME], NOW)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount: a file system to fill")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes what room is left in a folder's file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def test_a_full_disk_leaves_the_file_as_it_was(small_disk: Path) -> None:
    path = small_disk / "keys"
    new_keys(path, [HOME], NOW)
    before = path.read_bytes()
    filler = fill(small_disk)
    with pytest.raises(KeyFileError, match=r"keys: cannot be written \(No space left on device\)"):
        new_keys(path, [VAN], NOW)
    assert path.read_bytes() == before
    assert beside(path) == ["filler"]
    filler.unlink()
    new_keys(path, [VAN], NOW)
    assert len(load(path)) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_at_the_nodes_file_leaves_both_as_they_were(
    small_disk: Path, path: Path, overwrite: bool
) -> None:
    node = small_disk / "node.key"
    new_keys(path, [HOME], NOW, node_file=NodeFile(node) if overwrite else None)
    before = path.read_bytes()
    old = node.read_bytes() if overwrite else None
    fill(small_disk)
    with pytest.raises(KeyFileError, match=r"node.key: cannot be written \(No space left on dev"):
        rotate(path, HOME, 60, NOW, NodeFile(node, overwrite))
    assert path.read_bytes() == before
    assert (node.read_bytes() if overwrite else None) == old
    assert sorted(beside(node)) == ["filler"]


@needs_root
def test_root_may_change_a_file_of_another_user_who_stays_its_owner(path: Path) -> None:
    os.chown(put(path, f"7 10.1.2.3 {SECRET}\n"), 1234, 1234)
    new_keys(path, [VAN], NOW)
    assert path.stat().st_uid == 1234
    assert mode(path) == 0o600
    assert len(load(path)) == 2


# ---- several at a time ---------------------------------------------------------------------------


WRITER: Final = """
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from mat_real.key_changes import new_keys
from mat_real.key_file import parse_home
for i in range(20):
    new_keys(Path(sys.argv[1]), [parse_home(f"10.1.{sys.argv[2]}.{i + 1}")], 0.0)
"""


def test_writers_at_the_same_time_lose_no_key(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(i)], env=environment())
        for i in range(5)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 5
    ring = load(path)
    assert [entry.key_id for entry in ring.entries()] == [*range(1, 101)]
    assert len(list(ring.homes())) == 100
    assert beside(path) == []
