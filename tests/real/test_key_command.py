"""`mat key` from the command line: what it prints where, what it refuses, and what stops it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result

from mat_real._drafts import locked
from mat_real.commands.key import key
from mat_real.key_file import parse_home
from mat_real.keys import load
from tests.real.key_files import SECRET, beside, environment, mode, needs_root, put

MAT_KEY: Final = "from mat_real.commands.key import key; key(prog_name='mat key')"
RELOAD: Final = (
    "A running server takes this on with: systemctl reload mat-ims (or kill -HUP its process)\n"
)


def run(*arguments: object, keys: Path | None = None) -> Result:
    found = {"MAT_KEYS": None if keys is None else str(keys)}
    return CliRunner().invoke(key, [str(argument) for argument in arguments], env=found)


def start(*arguments: str | Path, keys: Path, wrapper: Sequence[str] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", MAT_KEY, *arguments, "--keys", keys],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


# ---- new -----------------------------------------------------------------------------------------


def test_a_new_key_goes_to_the_server_and_to_the_node(path: Path) -> None:
    node = path.with_name("node.key")
    result = run("new", "10.1.2.3", "--keys", path, "--out", node)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == (
        f"Key 1 for 10.1.2.3 added to {path}.\n"
        f"Written to {node}, mode 0600: the node's own key file.\n{RELOAD}"
    )
    assert mode(node) == mode(path) == 0o600
    assert [*load(node).entries()] == [*load(path).entries()]


@pytest.mark.parametrize("out", [[], ["--out", "-"]])
def test_without_a_file_for_the_node_its_key_is_printed_alone(path: Path, out: list[str]) -> None:
    result = run("new", "2001:db8::7", *out, keys=path)
    assert result.exit_code == 0
    assert result.stdout == path.read_text().splitlines(keepends=True)[-1]
    assert "What follows is secret" in result.stderr
    assert result.stdout.split()[2] not in result.stderr


def test_the_servers_file_is_named_by_option_or_environment_or_default(path: Path) -> None:
    assert run("new", "10.1.2.3", "--keys", path, keys=path.with_name("other")).exit_code == 0
    assert beside(path) == []
    assert run("list", keys=path).stdout.endswith("10.1.2.3\n")
    assert "default: /etc/mat/keys" in " ".join(run("list", "--help").stdout.split())


def test_several_homes_get_a_key_each(path: Path) -> None:
    result = run("new", "10.1.2.3", "10.1.4.0/24", "2001:db8::/48", "--id", "7", keys=path)
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["7", "10.1.2.3"],
        ["8", "10.1.4.0/24"],
        ["9", "2001:db8::/48"],
    ]
    assert result.stderr.startswith(f"3 keys, 7 to 9, added to {path}.\n")


def test_each_address_of_a_prefix_gets_a_key_and_none_is_printed(path: Path) -> None:
    result = run("new", "10.1.4.0/30", "--each", keys=path)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == f"4 keys, 1 to 4, added to {path}.\n{RELOAD}"
    homes = [parse_home(f"10.1.4.{i}") for i in range(4)]
    assert [*load(path).homes()] == homes


def test_each_takes_the_first_addresses_if_told_how_many(path: Path) -> None:
    nodes = path.with_name("nodes")
    result = run("new", "2001:db8::/32", "--each", "--count", 3, "--out", nodes, keys=path)
    assert result.exit_code == 0
    assert [*load(nodes).homes()] == [parse_home(f"2001:db8::{i}") for i in range(3)]
    assert run("new", "10.1.4.0/31", "--each", "--out", "-", keys=path).stdout.count("\n") == 2


# ---- list ----------------------------------------------------------------------------------------


def listed(path: Path) -> Path:
    return put(
        path,
        f"1 10.1.4.1 {SECRET} until=2020-01-01T00:00:00Z\n"
        f"2 10.1.4.1 {SECRET} until=2999-01-01T00:00:00Z\n"
        f"3 10.1.4.1 {SECRET}\n"
        f"4 10.1.4.0/24 {SECRET}\n"
        f"5 10.1.5.1 {SECRET}\n"
        f"6 2001:db8::1 {SECRET}\n",
    )


def test_keys_are_listed_with_their_states_and_without_secrets(path: Path) -> None:
    result = run("list", keys=listed(path))
    assert result.exit_code == 0
    assert result.stdout == (
        "ID          STATE     UNTIL                 HOA\n"
        "1           expired   2020-01-01T00:00:00Z  10.1.4.1\n"
        "2           rotating  2999-01-01T00:00:00Z  10.1.4.1\n"
        "3           valid     -                     10.1.4.1\n"
        "4           valid     -                     10.1.4.0/24\n"
        "5           valid     -                     10.1.5.1\n"
        "6           valid     -                     2001:db8::1\n"
    )


def test_a_listing_may_be_json_lines(path: Path) -> None:
    result = run("list", "--json", keys=listed(path))
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    until = "2020-01-01T00:00:00Z"
    assert rows[0] == {"id": 1, "home": "10.1.4.1", "state": "expired", "until": until}
    assert rows[3] == {"id": 4, "home": "10.1.4.0/24", "state": "valid", "until": None}
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("home", "ids"),
    [
        ("10.1.4.1", [1, 2, 3]),
        ("10.1.4.0/24", [1, 2, 3, 4]),
        ("10.1.4.0/25", [1, 2, 3]),
        ("10.1.0.0/16", [1, 2, 3, 4, 5]),
        ("10.9.9.9", []),
    ],
)
def test_a_listing_may_be_of_one_home_or_of_what_a_prefix_covers(
    path: Path, home: str, ids: list[int]
) -> None:
    result = run("list", home, "--json", keys=listed(path))
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ids


def test_a_listing_may_end_before_its_end(path: Path) -> None:
    put(path, "".join(f"{i} 10.1.{i >> 8}.{i & 255} {SECRET}\n" for i in range(1, 20_000)))
    with start("list", keys=path) as listing:
        assert listing.stdout is not None
        assert listing.stdout.readline().startswith("ID ")
        listing.stdout.close()
        assert listing.stderr is not None
        assert listing.stderr.read() == ""
        assert listing.wait(60) == 1


# ---- rotate, revoke ------------------------------------------------------------------------------


def test_a_rotation_makes_a_key_and_says_until_when_the_old_one_is_valid(path: Path) -> None:
    node = path.with_name("node.key")
    assert run("new", "10.1.2.3", "--out", node, keys=path).exit_code == 0
    before = time.time()
    result = run("rotate", "10.1.2.3", "--overlap", "12h", "--out", node, "--force", keys=path)
    assert result.exit_code == 0
    old, new = load(path).entries()
    assert [*load(node).entries()] == [new]
    assert before + 12 * 3600 <= old.until <= time.time() + 12 * 3600 + 1
    assert result.stdout == ""
    first, second, *_ = result.stderr.splitlines()
    assert first == f"Key 2 for 10.1.2.3 added to {path}."
    assert second.startswith("Key 1 stays valid until 20")
    assert result.stderr.endswith(f"the node's own key file.\n{RELOAD}")


def test_the_overlap_is_a_week_unless_told(path: Path) -> None:
    run("new", "10.1.2.3", keys=path)
    before = time.time()
    result = run("rotate", "10.1.2.3", keys=path)
    old, new = load(path).entries()
    assert before + 7 * 86400 <= old.until <= time.time() + 7 * 86400 + 1
    assert result.stdout == f"{new.line()}\n"


def test_a_rotation_names_the_expired_keys_that_it_removed(path: Path) -> None:
    result = run(
        "rotate", "10.1.4.1", keys=put(path, listed(path).read_text().replace("2999", "1999"))
    )
    assert result.exit_code == 0
    assert "Expired, and removed: keys 1, 2.\n" in result.stderr


def test_a_key_is_revoked_by_id_and_all_of_a_home_by_its_address(path: Path) -> None:
    listed(path)
    result = run("revoke", "5", keys=path)
    assert result.exit_code == 0
    assert result.stderr == f"Removed from {path}: key 5.\n{RELOAD}"
    assert run("revoke", "10.1.4.1", keys=path).stderr.startswith(
        f"Removed from {path}: keys 1, 2, 3.\n"
    )
    assert [entry.key_id for entry in load(path).entries()] == [4, 6]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["new"], "Missing argument 'HOA...'"),
        (["new", "10.1.2"], "'10.1.2' is no address; IPv4 like 192.0.2.1"),
        (["new", "10.1.2.3/16"], "the prefix would be 10.1.0.0/16"),
        (["new", "10.1.2.3", "--id", "4294967296"], "not in the range"),
        (["new", "10.1.2.3", "--force"], "--force needs --out FILE"),
        (["new", "10.1.2.3", "--out", "-", "--force"], "--force needs --out FILE"),
        (["new", "10.1.2.3", "--count", "3"], "--count needs --each"),
        (["new", "10.1.2.3", "10.1.2.4", "--each"], "--each takes one prefix"),
        (["new", "10.0.0.0/8", "--each"], "16777216 addresses; --count N, up to 1048576"),
        (["new", "10.1.2.0/30", "--each", "--count", "5"], "4 addresses, fewer than --count 5"),
        (["new", "10.0.0.0/8", "--each", "--count", "1048577"], "not in the range"),
        (["list", "nobody"], "'nobody' is no address"),
        (["rotate", "10.1.2.3", "--overlap", "7"], "'7' is no duration; write 90s, 15m, 12h or 7d"),
        (["rotate", "10.1.2.3", "--overlap", "-1d"], "is no duration"),
        (["rotate", "10.1.2.3", "--overlap", ""], "is no duration"),
        (["rotate", "10.1.2.3", "--overlap", "9999d"], "is more than ten years"),
        (["revoke", "4294967296"], "4294967296 is no key id; these go up to 4294967295"),
        (["revoke", "someone"], "'someone' is no address"),
    ],
)
def test_wrong_usage_exits_with_2_and_changes_nothing(
    path: Path, arguments: list[str], what: str
) -> None:
    result = run(*arguments, keys=path)
    assert result.exit_code == 2
    assert what in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["new", "10.1.2.3"],
        ["list"],
        ["rotate", "10.1.5.1"],
        ["revoke", "5"],
        ["revoke", "10.1.5.1"],
    ],
)
def test_a_file_that_others_can_read_is_refused_by_every_command(
    path: Path, arguments: list[str]
) -> None:
    before = listed(path).read_text()
    path.chmod(0o640)
    result = run(*arguments, keys=path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"Error: {path}: mode 0640 lets other users at the secrets; run: chmod 600 {path}\n"
    )
    assert path.read_text() == before


@needs_root
@pytest.mark.parametrize("arguments", [["list"], ["new", "10.1.2.3"], ["revoke", "5"]], ids=str)
def test_a_file_that_may_not_be_read_is_one_error_in_every_command(
    path: Path, arguments: list[str]
) -> None:
    os.chown(listed(path), 1234, 1234)
    # Root without the right to read everything: another user may not be let in where Python is.
    bare = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    with start(*arguments, keys=path, wrapper=bare) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err == f"Error: {path}: cannot be read (Permission denied); name a readable key file\n"


def test_a_home_that_has_a_key_gets_no_second_one(path: Path) -> None:
    assert run("new", "10.1.5.1", keys=path).exit_code == 0
    before = path.read_bytes()
    node = put(path.with_name("node.key"), "# the node's\n")
    result = run("new", "10.1.5.1", "--out", node, "--force", keys=path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {path}: 10.1.5.1 has key 1 already; `mat key rotate 10.1.5.1` replaces it\n"
    )
    assert (path.read_bytes(), node.read_text()) == (before, "# the node's\n")
    assert run("rotate", "10.1.5.1", "--out", node, "--force", keys=path).exit_code == 0


def test_each_address_gets_its_key_once(path: Path) -> None:
    arguments = ("new", "10.1.0.0/16", "--each", "--out", path.with_name("nodes"), "--force")
    assert run(*arguments, keys=path).exit_code == 0
    before = path.read_bytes()
    result = run(*arguments, keys=path)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {path}: 10.1.0.0 has key 1 already, as 65535 more of the homes named have one;"
        " `mat key rotate 10.1.0.0` replaces it\n"
    )
    assert path.read_bytes() == before


def test_a_path_is_quoted_where_a_shell_would_need_it(tmp_path: Path) -> None:
    path = put(tmp_path / "my keys", "", 0o644)
    assert f"run: chmod 600 '{path}'" in run("list", "--keys", path).stderr


def examples() -> list[list[str]]:
    """The arguments of each example in the helps; what stands behind a pipe is left out."""
    helps = [run(*command, "--help").stdout for command in ([], *([name] for name in key.commands))]
    lines = [line.strip() for text in helps for line in text.splitlines()]
    return [
        # A million keys are for the benchmark.
        re.split("  +| [|] ", line)[0].replace("1000000", "1000").split()[2:]
        for line in lines
        if line.startswith("mat key ")
    ]


@pytest.mark.parametrize("arguments", examples(), ids=" ".join)
def test_help_teaches_with_examples_that_work(
    path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    text = f"1 10.1.2.3 {SECRET}\n2 10.1.4.0/24 {SECRET}\n7 10.1.5.1 {SECRET}\n"
    if arguments[0] == "new":
        text = "# No home has two.\n"
    for file in (path, path.with_name("load.keys")):
        put(file, text)
    result = run(*arguments, keys=path)
    assert (result.exit_code, result.exception) == (0, None)


@pytest.mark.parametrize("name", key.commands)
def test_every_command_has_examples_of_its_use(name: str) -> None:
    assert f"  mat key {name} " in run(name, "--help").stdout


def test_the_command_is_light_to_import() -> None:
    program = (
        "import sys; import mat_real.commands.key;"
        "heavy = {'asyncio', 'pydantic', 'rich', 'mat_real.keys', 'mat_files', 'mat.address'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n"


# ---- what stops it -------------------------------------------------------------------------------

MANY: Final = 20_000


@pytest.fixture(scope="module")
def many_keys() -> str:
    """40 MB that are read quickly and written slowly: keys with long comments."""
    comment = "#" + "-" * 2000
    return "".join(f"{i} 10.1.{i >> 8}.{i & 255} {SECRET} {comment}\n" for i in range(MANY))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_change_that_is_stopped_in_the_middle_leaves_the_old_file(
    path: Path, many_keys: str, number: signal.Signals
) -> None:
    put(path, many_keys)
    draft = path.with_name(".keys.new")
    assert _stopped_while_writing(path, draft, number)
    assert path.read_text() == many_keys
    assert draft.exists() == (number != signal.SIGINT)
    assert run("new", "192.0.2.1", keys=path).exit_code == 0
    assert len(load(path)) == MANY + 1
    assert not draft.exists()


def _stopped_while_writing(path: Path, draft: Path, number: signal.Signals) -> bool:
    """Whether the signal came while the draft was written; on a busy machine, not at once."""
    before = path.read_bytes()
    for _ in range(20):
        with start("new", "192.0.2.1", keys=path) as changing:
            end = time.monotonic() + 60
            while not _size(draft) and changing.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.001)
            changing.send_signal(number)
            code = changing.wait(60)
        if path.read_bytes() == before:
            return code != 0
        # It came too late: the new file is there, and whole.
        assert len(load(path)) == MANY + 1
        put(path, before)
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_change_that_waits_for_another_can_be_interrupted(path: Path) -> None:
    put(path, f"7 10.1.2.3 {SECRET}\n")
    with locked(path.parent), start("new", "192.0.2.1", keys=path) as waiting:
        _wait_until_blocked(waiting.pid)
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(60) == 1
    assert path.read_text() == f"7 10.1.2.3 {SECRET}\n"


def _wait_until_blocked(pid: int) -> None:
    """Until the process is among those that wait for a lock."""
    end = time.monotonic() + 60
    while True:
        waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        if any("->" in line and str(pid) in line for line in waiting):
            return
        assert time.monotonic() < end
        time.sleep(0.01)
