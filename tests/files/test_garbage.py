"""Whatever a file holds, reading it gives a value or a `ScenarioError`, and nothing else."""

import contextlib
import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mat_files.attachment import read_events
from mat_files.errors import ScenarioError
from mat_files.mobility import mobility
from mat_files.scenario import load_scenario
from mat_files.traces import detect_format, read_trace
from tests.files.test_scenario import MINIMAL
from tests.files.test_traces import CSV, FCD, NS2, SCENARIOS
from tests.files.test_traces_paths import BONNMOTION, GPX

EVENTS = "t,node,action,network,interface,moa\n0,m,attach,A,0,10.0.0.1\n1,m,detach,A,,\n"
SOURCES = [
    FCD.encode(),
    NS2.encode(),
    CSV.encode(),
    BONNMOTION.encode(),
    GPX.encode(),
    EVENTS.encode(),
    MINIMAL.encode(),
    f"{MINIMAL}[movement.random_waypoint]\nsize = [300, 300]\ngroup = 2\n".encode(),
    f"{MINIMAL}[movement.train]\nroute = [[0, 0], [900, 0]]\n".encode(),
    f"{MINIMAL}[movement.crowd]\noverlap = 1\n".encode(),
    (SCENARIOS / "town.toml").read_bytes(),
    gzip.compress(FCD.encode(), mtime=0),
]
SNIPPETS = [
    b"nan",
    b"-1",
    b"1e999",
    b'"',
    b"\x00",
    b"\xff",
    b"\n",
    b",",
    b"[",
    b"<",
    b"=",
    b"9" * 30,
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of the files with up to three stretches replaced."""
    data = draw(st.sampled_from(SOURCES))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 30)))
        data = data[:start] + draw(st.sampled_from([*SNIPPETS, b""])) + data[end:]
    return data


@settings(max_examples=400)
@given(damaged())
def test_a_damaged_file_is_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(data)
        for reader in (detect_format, read_trace, read_events):
            with contextlib.suppress(ScenarioError):
                reader(path)
        with contextlib.suppress(ScenarioError):
            mobility(load_scenario(path))


KEYS = st.sampled_from(
    ["network", "0", "1", "2", "ims", "nodes", "count", "x", "", "coverage", "grid"]
)


@given(
    st.lists(KEYS, max_size=4), st.sampled_from(["1", "x", "[]", "{}", "nan", "'a'", "", "[{}]"])
)
def test_any_override_is_applied_or_refused(keys: list[str], value: str) -> None:
    with contextlib.suppress(ScenarioError):
        load_scenario(SCENARIOS / "town.toml", [f"{'.'.join(keys)}={value}"])


def test_an_interface_of_many_digits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f"t,node,action,network,interface\n0,m,attach,A,{'9' * 5000}\n")
    with pytest.raises(ScenarioError, match="must be a number from 0 to 1"):
        read_events(path)


def test_reading_a_folder_is_refused(tmp_path: Path) -> None:
    for reader in (read_trace, read_events, load_scenario):
        with pytest.raises(ScenarioError, match=r"[Ii]s a directory"):
            reader(tmp_path)
