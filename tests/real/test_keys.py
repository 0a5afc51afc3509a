"""Key files and the key ring: what is read, and what is refused."""

import os
import shutil
import subprocess
import sys
from binascii import a2b_base64
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mat.address import Address, is_unicast, parse_address
from mat.messages import EXACT
from mat_real import keys
from mat_real.key_file import (
    LAST_ID,
    MAX_PROBLEMS,
    NEVER,
    Entry,
    KeyFileError,
    LineError,
    parse_home,
    parse_line,
)
from mat_real.keys import KEPT, KeyRing, load
from tests.real.key_files import (
    HOME,
    NOW,
    SECRET,
    VAN,
    environment,
    needs_root,
    problems,
    put,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


# ---- lines ---------------------------------------------------------------------------------------


def test_a_line_has_an_id_a_home_and_a_secret() -> None:
    entry = parse_line(f"7 10.1.2.3 {SECRET}")
    assert entry == Entry(7, parse_address("10.1.2.3"), EXACT, b"secret secret secret secret secr")


def test_a_prefix_length_is_the_familys_own() -> None:
    assert parse_home("10.1.4.0/24") == (parse_address("10.1.4.0"), 120)
    assert parse_home("2001:db8::/48") == (parse_address("2001:db8::"), 48)
    assert parse_home("10.1.2.3/32") == parse_home("10.1.2.3") == (parse_address("10.1.2.3"), 128)


def test_until_is_a_time_in_utc() -> None:
    entry = parse_line(f"7 10.1.2.3 {SECRET} until=2027-01-15T08:00:00Z")
    assert entry is not None
    assert entry.until == NOW


def test_a_comment_may_stand_behind_a_key() -> None:
    assert parse_line(f"7 10.1.2.3 {SECRET}  # Alice") == parse_line(f"7 10.1.2.3 {SECRET}")


@pytest.mark.parametrize("line", ["", "\n", "  \r\n", "# a comment", "   # another"])
def test_blank_lines_and_comments_are_no_keys(line: str) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("line", "field", "what"),
    [
        ("7 10.1.2.3", "", "has 2 fields; ID HOA SECRET [until=TIME] are needed"),
        (f"7 10.1.2.3 {SECRET} until=2027-01-15T08:00:00Z x", "", "has 5 fields"),
        (f"x 10.1.2.3 {SECRET}", "id", "a whole number from 0 to 4294967295"),
        (f"4294967296 10.1.2.3 {SECRET}", "id", "a whole number from 0 to 4294967295"),
        (f"1_0 10.1.2.3 {SECRET}", "id", "a whole number"),
        (f"-1 10.1.2.3 {SECRET}", "id", "a whole number"),
        (f"٧ 10.1.2.3 {SECRET}", "id", "a whole number"),
        ("9" * 5000 + f" 10.1.2.3 {SECRET}", "id", "a whole number"),
        (f"7 10.1.2 {SECRET}", "HoA", "is no address"),
        (f"7 10.1.2.03 {SECRET}", "HoA", "is no address"),
        (f"7 host.example {SECRET}", "HoA", "is no address"),
        (f"7 fe80::1%eth0 {SECRET}", "HoA", "is no address"),
        (f"7 10.1.2.3\0 {SECRET}", "HoA", "is no address"),
        (f"7 224.0.0.1 {SECRET}", "HoA", "is no unicast address"),
        (f"7 10.1.2.3/24 {SECRET}", "HoA", "the prefix would be 10.1.2.0/24"),
        (f"7 10.1.2.0/33 {SECRET}", "HoA", "has a wrong prefix length; /0 to /32"),
        (f"7 10.1.2.0/ {SECRET}", "HoA", "has a wrong prefix length"),
        (f"7 2001:db8::/129 {SECRET}", "HoA", "has a wrong prefix length; /0 to /128"),
        (f"7 10.1.2.3 {SECRET[:-1]}", "secret", "is not base64, or is cut off"),
        (f"7 10.1.2.3 {SECRET[:20]}*{SECRET[20:]}", "secret", "is not base64"),
        ("7 10.1.2.3 c2hvcnQ=", "secret", "has 5 bytes; 16 or more are needed"),
        (f"7 10.1.2.3 {SECRET} 2027-01-15T08:00:00Z", "until", "a time in UTC like until=2026"),
        (f"7 10.1.2.3 {SECRET} until=2027-01-15", "until", "a time in UTC"),
        (f"7 10.1.2.3 {SECRET} until=2027-01-15T08:00:00", "until", "a time in UTC"),
        (f"7 10.1.2.3 {SECRET} until=2027-01-15T08:00:00+09:00", "until", "a time in UTC"),
        (f"7 10.1.2.3 {SECRET} until=2027-01-15T080000+09", "until", "a time in UTC"),
        (f"7 10.1.2.3 {SECRET} until=2027-01-15x08:00:00Z", "until", "a time in UTC"),
        (f"7 10.1.2.3 {SECRET} until=0001-01-01T00:00:00", "until", "a time in UTC"),
        (f"7 10.1.2.3 {SECRET} until=2027-02-30T08:00:00Z", "until", "a time in UTC"),
        (f"{SECRET} 10.1.2.3 7", "id", "a whole number"),
        (f"7 {SECRET} 10.1.2.3", "HoA", "is no address"),
    ],
)
def test_a_garbled_line_is_refused_by_field_without_showing_it(
    line: str, field: str, what: str
) -> None:
    with pytest.raises(LineError) as raised:
        parse_line(line)
    assert raised.value.field == field
    assert what in str(raised.value)
    assert SECRET[:8] not in str(raised.value)


HOSTS = (
    st.one_of(
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=4, max_size=4).map(lambda packed: bytes(10) + b"\xff\xff" + packed),
    )
    .map(Address)
    .filter(is_unicast)
)
ENTRIES = st.builds(
    Entry,
    st.integers(0, LAST_ID),
    HOSTS,
    st.just(EXACT),
    st.binary(min_size=16, max_size=80),
    st.one_of(st.just(NEVER), st.integers(0, 1 << 33).map(float)),
)


@given(ENTRIES)
def test_what_is_written_reads_back(entry: Entry) -> None:
    assert parse_line(entry.line()) == entry


@given(st.text(alphabet="0123456789abcdef.:/%", max_size=30))
def test_addresses_are_read_as_strictly_as_everywhere(text: str) -> None:
    try:
        expected = parse_address(text)
    except ValueError:
        expected = None
    try:
        found = parse_home(text)[0] if "/" not in text else None
    except ValueError:
        found = None
    assert found == (expected if expected is not None and is_unicast(expected) else None)


@given(st.text())
def test_whatever_a_line_has_nothing_but_a_line_error_comes_of_it(text: str) -> None:
    for line in (text, f"7 {text} {SECRET}", f"7 10.1.2.3 {text}", f"7 10.1.2.3 {SECRET} {text}"):
        with suppress(LineError):
            parse_line(line)


@given(st.binary(max_size=300))
def test_whatever_a_file_has_nothing_but_a_key_file_error_comes_of_it(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = put(Path(folder) / "keys", data)
        with suppress(KeyFileError):
            load(path)


# ---- files ---------------------------------------------------------------------------------------


def test_a_key_file_is_loaded(path: Path) -> None:
    put(path, f"# keys\n\n7 10.1.2.3 {SECRET}\n3 10.1.4.0/24 {SECRET} # van\n")
    ring = load(path)
    assert len(ring) == 2
    found = ring(7)
    assert found is not None
    assert found.permits(*HOME)
    assert list(ring.homes()) == [VAN, HOME]


def test_files_of_other_systems_are_read(path: Path) -> None:
    """A byte order mark, CRLF, a comment in another encoding, no end of the last line."""
    lines = [b"\xef\xbb\xbf7 10.1.2.3 " + SECRET.encode(), b"# caf\xe9"]
    lines.append(b"8 10.1.2.4 " + SECRET.encode())
    ring = load(put(path, b"\r\n".join(lines)))
    assert [entry.key_id for entry in ring.entries()] == [7, 8]
    assert {entry.secret for entry in ring.entries()} == {a2b_base64(SECRET)}


def test_every_problem_is_told_with_its_line(path: Path) -> None:
    put(path, f"x 10.1.2.3 {SECRET}\n7 10.1.2.3 {SECRET}\n\n8 10.1.2 {SECRET}\n9 10.1.2.3\n")
    assert [problem.partition(";")[0] for problem in problems(path)] == [
        f"{path}:1: id: a whole number from 0 to 4294967295 is needed",
        f"{path}:4: HoA: is no address",
        f"{path}:5: has 2 fields",
    ]


def test_a_file_of_something_else_is_not_read_to_its_end(path: Path) -> None:
    found = problems(put(path, "no key\n" * 1000))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == f"{path}: too many problems: not read further"


def test_a_torn_last_line_is_refused(path: Path) -> None:
    put(path, f"7 10.1.2.3 {SECRET}\n8 10.1.2.4 {SECRET[:30]}")
    assert problems(path) == [f"{path}:2: secret: is not base64, or is cut off"]


def test_a_key_id_occurs_once(path: Path) -> None:
    put(path, f"7 10.1.2.3 {SECRET}\n8 10.1.2.4 {SECRET}\n7 10.1.2.5 {SECRET}\n")
    assert problems(path) == [
        f"{path}:3: id: 7 is the key of line 1 already; give each key its own"
    ]


def test_two_keys_of_a_home_may_be_valid_and_any_number_expired(path: Path) -> None:
    expired = "".join(f"{i} 10.1.2.3 {SECRET} until=2027-01-15T08:00:00Z\n" for i in range(1, 5))
    put(path, f"{expired}7 10.1.2.3 {SECRET} until=2027-01-15T08:00:01Z\n8 10.1.2.3 {SECRET}\n")
    ring = load(path, lambda: NOW)
    assert [i for i in range(10) if ring(i)] == [7, 8]
    assert [entry.state(NOW) for entry in ring.entries()][3:] == ["expired", "rotating", "valid"]


def test_a_third_valid_key_of_a_home_is_refused(path: Path) -> None:
    expired = f"6 10.1.4.0/24 {SECRET} until=2027-01-15T08:00:00Z\n"
    put(path, expired + "".join(f"{i} 10.1.4.0/24 {SECRET}\n" for i in (7, 8, 9)))
    assert problems(path) == [
        f"{path}:4: HoA: has 2 valid keys already, in lines 2 and 3; remove one of them"
    ]


def test_an_address_and_the_prefix_that_starts_there_are_different_homes(path: Path) -> None:
    homes = ("10.1.4.0", "10.1.4.0/24", "10.1.4.0/23", "10.1.4.0")
    ring = load(put(path, "".join(f"{i} {home} {SECRET}\n" for i, home in enumerate(homes))))
    assert len(ring) == 4
    assert len(list(ring.homes())) == 3


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o644, 0o666])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    put(path, f"7 10.1.2.3 {SECRET}\n", mode)
    what = f"{path}: mode {mode:04o} lets other users at the secrets; run: chmod 600 {path}"
    assert problems(path) == [what]


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_only_its_owner_can_open_is_read(path: Path, mode: int) -> None:
    assert len(load(put(path, f"7 10.1.2.3 {SECRET}\n", mode))) == 1


def test_what_is_no_regular_file_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path, 0o600)
    assert problems(path) == [f"{path}: is no regular file, as a key file must be"]
    assert problems(path.parent) == [f"{path.parent}: is no regular file, as a key file must be"]


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    assert problems(path) == [f"{path}: does not exist; mat key new HOA --keys {path} makes it"]


def test_of_a_link_the_file_behind_it_counts(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(put(path, f"7 10.1.2.3 {SECRET}\n"))
    assert len(load(link)) == 1
    path.chmod(0o644)
    assert "mode 0644" in problems(link)[0]


def as_nobody(path: Path) -> str:
    """What loading says to a user who is not the owner, but may read every file."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("needs setpriv")
    program = f"from pathlib import Path; from mat_real.keys import load; load(Path({str(path)!r}))"
    capability = "+dac_read_search"
    result = subprocess.run(
        [
            *(setpriv, "--reuid=65534", f"--inh-caps={capability}"),
            *(f"--ambient-caps={capability}", sys.executable, "-c", program),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stderr


@needs_root
def test_a_file_of_another_user_is_refused_but_not_one_of_root(path: Path) -> None:
    put(path, f"7 10.1.2.3 {SECRET}\n")
    assert as_nobody(path) == ""
    os.chown(path, 1234, 1234)
    assert f"{path}: belongs to user 1234, who could change it" in as_nobody(path)
    os.chown(path, 65534, 65534)
    assert as_nobody(path) == ""


# ---- the ring ------------------------------------------------------------------------------------


@given(st.lists(ENTRIES, unique_by=lambda entry: entry.key_id), st.integers(0, 1 << 33))
def test_a_ring_finds_what_a_dict_would(entries: list[Entry], now: int) -> None:
    ring = KeyRing(entries, lambda: float(now))
    expected = {entry.key_id: entry.key() for entry in entries if now < entry.until}
    ids = {entry.key_id for entry in entries}
    asked = ids | {i + 1 for i in ids} | {i - 1 for i in ids} | {0, LAST_ID}
    assert {i: key for i in asked if (key := ring(i)) is not None} == expected
    assert list(ring.entries()) == sorted(entries)
    assert len(ring) == len(entries)


@given(st.sets(st.integers(1, 60)))
def test_a_ring_finds_its_way_between_missing_ids(ids: set[int]) -> None:
    ring = KeyRing(Entry(i, *HOME, bytes(16)) for i in ids)
    for _ in range(2):
        assert {i for i in range(-1, 70) if ring(i) is not None} == ids


def test_two_keys_of_one_id_make_no_ring() -> None:
    with pytest.raises(ValueError, match="a key id occurs twice"):
        KeyRing([Entry(7, *HOME, bytes(16)), Entry(7, *VAN, bytes(16))])


def test_a_key_ends_while_the_ring_is_in_use() -> None:
    now = [NOW]
    ring = KeyRing(
        [Entry(7, *HOME, bytes(16), NOW + 1), Entry(8, *HOME, bytes(16))], lambda: now[0]
    )
    assert ring(7) is not None
    now[0] = NOW + 1
    assert ring(7) is None
    assert ring(8) is not None


def test_keys_kept_as_objects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEPT", 10)
    ring = KeyRing(Entry(i, *HOME, bytes(16)) for i in range(100))
    first = ring(0)
    assert ring(0) is first
    for i in range(100):
        assert ring(i) is not None
        assert len(ring._kept) <= 10
    assert KEPT == 1 << 16


def test_a_ring_takes_62_bytes_a_key() -> None:
    ring = KeyRing(Entry(i, *HOME, bytes(32)) for i in range(1000))
    assert len(ring._records) + ring._ids.itemsize * len(ring._ids) == 62 * 1000


def test_free_ids_follow_the_greatest_or_fill_the_first_gap() -> None:
    def following(*ids: int, count: int = 1) -> range:
        return KeyRing(Entry(i, *HOME, bytes(16)) for i in ids).next_ids(count)

    assert following() == range(1, 2)
    assert following(1, 7) == range(8, 9)
    assert following(LAST_ID - 2, count=2) == range(LAST_ID - 1, LAST_ID + 1)
    assert following(1, 2, 4, 7, LAST_ID) == range(3, 4)
    assert following(1, 2, 4, 7, LAST_ID, count=2) == range(5, 7)
    with pytest.raises(ValueError, match="no 4294967295 key ids in a row are free"):
        following(LAST_ID, count=LAST_ID)
