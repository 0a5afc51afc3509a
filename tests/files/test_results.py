"""Result tables: written whole or not at all, read back, and explaining themselves."""

import tempfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mat_files import results as module
from mat_files.errors import ResultsError
from mat_files.results import Provenance, Results, write_files
from mat_files.schema import HANDOVERS, PARTS, SCHEMAS, Schema

PROVENANCE = Provenance("1.2.3", 'format = 1\nname = "ü"\n', "nodes.count=2\nscenario.seed=9", 9)
FILES = {f"{schema.name}.{kind}" for schema in SCHEMAS for kind in ("parquet", "csv")}


def handover(**values: object) -> dict[str, object]:
    row: dict[str, object] = {
        "run": 0,
        "node": "m1",
        "ordinal": 1,
        "from_network": "A",
        "to_network": "B",
        "kind": "hard",
        "time": 10.0,
        "peers": 1,
        "outcome": "unfinished",
    }
    return row | values


def sample(node: str = "m1") -> Results:
    parts = dict.fromkeys(PARTS, 0.1)
    full = handover(
        **parts, total=0.7, outcome="completed", lost_up=3, lost_down=0, to_moa="10.0.0.1"
    )
    message = {
        "run": 0,
        "type": "MA Query",
        "from_role": "MN",
        "to_role": "IMS_CN",
        "sent": 2,
        "delivered": 1,
        "lost": 1,
        "retransmitted": 1,
        "bytes": 128,
    }
    load = {
        "run": 0,
        "ims": "IMS_CN",
        "start": 0.0,
        "interval": 1.0,
        "received": 1,
        "answered": 1,
        "refused": 0,
        "dropped": 0,
        "busy": 0.5,
        "queue_max": 0,
        "mappings": 4,
    }
    flow = {"run": 0, "from_role": "MN", "to_role": "CN", "sent": 3, "delivered": 2, "lost": 1}
    link = {
        "run": 0,
        "link": "A",
        "kind": "network",
        "direction": "up",
        "start": 0.0,
        "interval": 0.1,
        "arrived": 9,
        "dropped": 1,
        "bytes": 800,
        "busy": 0.5,
        "queue_mean": 0.3,
        "wait_max": 0.02,
    }
    handovers = [full, handover(node=node, ordinal=2)]
    return Results.build(PROVENANCE, handovers, [message], [load], [flow], links=[link])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = sample()
    files = written.write(tmp_path / "a" / "b")
    assert {path.name for path in files} == FILES
    read = Results.read(tmp_path / "a" / "b")
    pd.testing.assert_frame_equal(read.handovers, written.handovers)
    pd.testing.assert_frame_equal(read.messages, written.messages)
    pd.testing.assert_frame_equal(read.ims, written.ims)
    pd.testing.assert_frame_equal(read.flows, written.flows)
    pd.testing.assert_frame_equal(read.links, written.links)
    assert read.provenance == PROVENANCE


@pytest.mark.parametrize("table", ["flows", "links"])
def test_results_of_before_there_was_a_table_are_read(tmp_path: Path, table: str) -> None:
    sample().write(tmp_path)
    (tmp_path / f"{table}.parquet").unlink()
    read = Results.read(tmp_path)
    found = getattr(read, table)
    assert (len(read.handovers), len(found)) == (2, 0)
    assert found.columns.tolist() == getattr(sample(), table).columns.tolist()


def test_the_rows_of_several_results_are_joined_in_order() -> None:
    joined = Results.joined([sample("m1"), sample("m2")], PROVENANCE)
    assert joined.handovers["node"].tolist() == ["m1", "m1", "m1", "m2"]
    assert joined.flows["sent"].tolist() == [3, 3]
    assert joined.links["arrived"].tolist() == [9, 9]


def test_what_did_not_occur_is_empty(tmp_path: Path) -> None:
    sample().write(tmp_path)
    row = pq.read_table(tmp_path / "handovers.parquet").to_pylist()[1]
    assert (row["notify"], row["to_moa"], row["lost_up"]) == (None, None, None)
    line = (tmp_path / "handovers.csv").read_text().splitlines()[2]
    assert line == "0,m1,2,A,B,,,hard,10.0,,,,,,,,,,,,,1,unfinished"


def test_a_parquet_file_explains_its_columns_and_its_origin(tmp_path: Path) -> None:
    sample().write(tmp_path)
    schema = pq.read_schema(tmp_path / "handovers.parquet")
    assert schema.names == [column.name for column in HANDOVERS.columns]
    for column in HANDOVERS.columns:
        metadata = schema.field(column.name).metadata
        assert metadata[b"unit"].decode() == column.unit
        assert metadata[b"description"].decode() == column.description
    assert schema.metadata[b"mat.table"] == b"handovers"
    assert schema.metadata[b"mat.schema_version"] == b"1"
    assert schema.metadata[b"mat.scenario"].decode() == PROVENANCE.scenario
    assert schema.metadata[b"mat.overrides"] == b"nodes.count=2\nscenario.seed=9"
    assert schema.metadata[b"mat.seed"] == b"9"
    assert schema.metadata[b"mat.version"] == b"1.2.3"


def test_equal_results_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        sample().write(tmp_path / name)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_earlier_run_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    sample("first").write(tmp_path, {"ladder.txt": b"old", "handovers.png": b"old"})
    (tmp_path / "notes.txt").write_text("mine")
    sample("second").write(tmp_path, {"ladder.txt": b"new"})
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"ladder.txt", "notes.txt"}
    assert (tmp_path / "ladder.txt").read_bytes() == b"new"
    assert Results.read(tmp_path).handovers["node"].tolist() == ["m1", "second"]


class Interrupted(BaseException):
    """Stands for Ctrl-C, which is no `Exception`."""


@pytest.mark.parametrize("error", [Interrupted(), RuntimeError("bug")])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    sample("first").write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(path: Path, schema: Schema, *_: object) -> None:
        path.write_bytes(b"half")
        if schema.name == "ims":
            raise error

    monkeypatch.setattr(module, "write_parquet", fail)
    with pytest.raises(type(error)):
        sample("second").write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failed_write_makes_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(module, "write_parquet", fail)
    with pytest.raises(Interrupted):
        sample().write(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResultsError, match=r"out: results cannot be written here \(File exists\)"):
        sample().write(tmp_path / "out")
    with pytest.raises(ResultsError, match=r"below: .* \(Not a directory\); name a directory"):
        sample().write(tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_directory_without_permission_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(ResultsError, match="Permission denied"):
        sample().write(tmp_path)


def test_only_the_runs_own_names_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not among the files of a run: \.\./x"):
        sample().write(tmp_path, {"../x": b""})


def test_files_alone_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    sample().write(tmp_path / "out", {"load.png": b"old"})
    before = {path.name for path in (tmp_path / "out").iterdir()}
    write_files(tmp_path / "out", {"calibration.json": b"{}", "calibration.toml": b""})
    assert {path.name for path in (tmp_path / "out").iterdir()} == before | {
        "calibration.json",
        "calibration.toml",
    }
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ResultsError, match="results cannot be written here"):
        write_files(tmp_path / "file", {"calibration.json": b"{}"})
    with pytest.raises(ResultsError, match="results cannot be written here"):
        write_files(tmp_path / "new", {"missing/calibration.json": b"{}"})
    assert not (tmp_path / "new").exists()


def test_what_only_a_server_knows_of_itself_may_be_empty(tmp_path: Path) -> None:
    row = {"run": 0, "ims": "192.0.2.1:49628", "start": 0.0, "interval": 0.1}
    row |= {"received": 3, "answered": 2, "refused": 0}
    Results.build(PROVENANCE, [], [], [row]).write(tmp_path)
    read = Results.read(tmp_path).ims
    assert read[["dropped", "busy", "queue_max", "mappings"]].isna().all(axis=None)


def test_rows_are_checked_against_the_schema() -> None:
    with pytest.raises(ValueError, match="handovers has no column colour"):
        Results.build(PROVENANCE, [handover(colour="red")], [], [])
    with pytest.raises(ValueError, match=r"handovers\.kind is empty in a row; it is required"):
        Results.build(PROVENANCE, [handover(kind=None)], [], [])


def test_tables_without_rows_have_their_columns(tmp_path: Path) -> None:
    Results.build(PROVENANCE, [], [], []).write(tmp_path)
    read = Results.read(tmp_path)
    assert list(read.handovers.columns) == [column.name for column in HANDOVERS.columns]
    assert len(read.handovers) == 0


def test_what_is_no_result_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"handovers\.parquet: cannot be read as results"):
        Results.read(tmp_path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "handovers.parquet")
    with pytest.raises(ResultsError, match=r"handovers\.parquet: is no handovers table of mat"):
        Results.read(tmp_path)
    (tmp_path / "handovers.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ResultsError, match=r"handovers\.parquet: cannot be read as results"):
        Results.read(tmp_path)


def test_results_of_another_schema_version_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample().write(tmp_path)
    monkeypatch.setattr(module, "SCHEMA_VERSION", 2)
    with pytest.raises(ResultsError, match="has schema version 1; this program reads 2"):
        Results.read(tmp_path)
