"""Movement traces: three formats, one movement, and every way in which a file can be wrong."""

import gzip
from pathlib import Path

import pytest

from mat_files.errors import TraceError
from mat_files.traces import Trace, detect_format, read_trace

SCENARIOS = Path(__file__).parents[2] / "sim" / "scenarios"
DATA = Path(__file__).parents[3] / "shared" / "data"

FCD = """<?xml version="1.0"?>
<fcd-export>
    <timestep time="0.00">
        <vehicle id="car b" x="1.5" y="2" speed="1"/>
    </timestep>
    <timestep time="1.00">
        <vehicle id="car b" x="2.5" y="2" speed="1"/>
        <person id="p" x="0" y="0" speed="1"/>
    </timestep>
    <timestep time="2.00">
        <person id="p" x="0" y="1" speed="1"/>
    </timestep>
</fcd-export>
"""
NS2 = """# exported
set opt(nn) 2
$node_(0) set X_ 1.5
$node_(0) set Y_ 2
$node_(0) set Z_ 0
$ns_ at 0.0 "$node_(0) setdest 1.5 2 1.00"
$ns_ at 1.0 "$node_(0) setdest 2.5 2 1.00"
$node_(1) set X_ 0
$node_(1) set Y_ 0
$ns_ at 1.0 "$node_(1) setdest 0 0 1.00"
$ns_ at 2.0 "$node_(1) setdest 0 1 1.00"
"""
CSV = """t,node,x,y
0,car b,1.5,2
1,car b,2.5,2
# a comment, and a blank line

1,p,0,0
2,p,0,1
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(trace: Trace) -> list[tuple[float, str, float, float]]:
    columns = (trace.time.tolist(), trace.node.tolist(), trace.x.tolist(), trace.y.tolist())
    return [(t, trace.nodes[n], x, y) for t, n, x, y in zip(*columns, strict=True)]


def needed(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"{name} lies outside the repository and is not here")
    return DATA / name


EXPECTED = [(0, "car b", 1.5, 2), (1, "car b", 2.5, 2), (1, "p", 0, 0), (2, "p", 0, 1)]


@pytest.mark.parametrize(("name", "text"), [("a.xml", FCD), ("b.csv", CSV)])
def test_ids_are_kept(tmp_path: Path, name: str, text: str) -> None:
    assert rows(read_trace(write(tmp_path / name, text))) == EXPECTED


def test_ns2_of_the_trace_exporter_is_the_same_movement_under_numbers(tmp_path: Path) -> None:
    renamed = [(t, {"car b": "0", "p": "1"}[node], x, y) for t, node, x, y in EXPECTED]
    assert rows(read_trace(write(tmp_path / "a.tcl", NS2))) == renamed


def test_presence_is_from_the_first_row_to_the_last(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "a.xml", FCD))
    assert trace.presence() == {"car b": [(0.0, 1.0)], "p": [(1.0, 2.0)]}


def test_any_other_ns2_file_is_a_walk(tmp_path: Path) -> None:
    text = (
        "$node_(0) set X_ 0\n$node_(0) set Y_ 0\n"
        '$ns_ at 1.0 "$node_(0) setdest 10 0 4"\n'
        '$ns_ at 2.0 "$node_(0) setdest 4 3 1.5"\n'
    )
    trace = read_trace(write(tmp_path / "walk.ns2", text))
    assert rows(trace) == [
        (0, "0", 0, 0),
        (1, "0", 0, 0),
        (2, "0", 4, 0),  # a walk cut short by the next begins where it had come to
        (3, "0", 4, 1.5),
        (4, "0", 4, 3),
    ]


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(FCD.encode()))
    assert rows(read_trace(path)) == EXPECTED


def test_formats_are_recognised_by_content(tmp_path: Path) -> None:
    events = "t,node,action,network\n0,m,attach,A\n"
    found = [detect_format(write(tmp_path / "x", text)) for text in (FCD, NS2, CSV, events)]
    assert found == ["fcd", "ns2", "positions", "events"]


def test_format_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", CSV)
    with pytest.raises(TraceError, match=r"x\.csv:1: malformed XML \(syntax error\)"):
        read_trace(path, "fcd")


def test_a_frame_has_the_columns_of_the_native_format(tmp_path: Path) -> None:
    frame = read_trace(write(tmp_path / "x.csv", CSV)).frame()
    assert list(frame.columns) == ["t", "node", "x", "y"]
    assert [tuple(row) for row in frame.to_numpy().tolist()] == EXPECTED


def test_a_gap_can_be_an_absence(tmp_path: Path) -> None:
    text = "t,node,x,y\n0,a,0,0\n1,a,1,0\n2,a,2,0\n5,a,5,0\n6,a,6,0\n"
    trace = read_trace(write(tmp_path / "x.csv", text), gaps="absent")
    assert trace.presence() == {"a": [(0.0, 2.0), (5.0, 6.0)]}


def same_movement(fcd: Path, ns2: Path) -> int:
    first, second = read_trace(fcd), read_trace(ns2)
    for left, right in zip(
        (first.time, first.node, first.x, first.y),
        (second.time, second.node, second.x, second.y),
        strict=True,
    ):
        assert left.tolist() == right.tolist()
    assert list(second.nodes) == [str(number) for number in range(len(first.nodes))]
    return len(first.nodes)


def test_town_is_the_same_in_both_formats() -> None:
    assert (
        same_movement(SCENARIOS / "town.fcd.xml.gz", Path(__file__).parent / "town.ns2.gz") == 134
    )


def test_manhattan_is_the_same_in_both_formats() -> None:
    assert same_movement(needed("manhattan.fcd.xml.gz"), needed("manhattan.ns2.gz")) == 201


HEAD = "t,node,x,y\n"
STEP = '<fcd-export>\n<timestep time="0">\n'
START = "$node_(0) set X_ 0\n$node_(0) set Y_ 0\n"
BAD = {
    "csv-unordered": (
        HEAD + "5,a,0,0\n4,b,0,0\n",
        "FILE:3: t: is 4 after 5; rows must be in order of time",
    ),
    "csv-nan": (HEAD + "0,a,0,nan\n", "FILE:2: y: is nan; must be a finite number"),
    "csv-infinite": (HEAD + "0,a,0,0\n1,a,-inf,0\n", "FILE:3: x: is -inf; must be a finite number"),
    "csv-text": (HEAD + "0,a,east,0\n", "FILE:2: x: is 'east'; must be a number"),
    "csv-negative": (HEAD + "-1,a,0,0\n", "FILE:2: t: is -1; time starts at 0"),
    "csv-short": (
        HEAD + "0,a,0\n",
        "FILE:2: has 3 fields where the header names 4: t,node,x,y",
    ),
    "csv-nameless": (HEAD + "0,,0,0\n", "FILE:2: node: is empty; every row names a node"),
    "csv-header": ("t,node,x\n0,a,0\n", "FILE:1: header: is 't,node,x'; must be t,node,x,y"),
    "csv-empty": (HEAD, "FILE: holds no position; a trace needs at least one row"),
    "csv-twice": (
        HEAD + "0,a,0,0\n1,a,0,0\n1,a,0,0\n",
        "FILE:4: node: 'a' has two rows at t = 1; one position per node and time",
    ),
    "csv-gap": (
        HEAD + "0,a,0,0\n1,a,0,0\n2,a,0,0\n5,a,0,0\n",
        "FILE:5: t: 'a' is missing between t = 2 and 5 while rows come every 1 s; add the rows",
    ),
    "fcd-unordered": (
        STEP + '<vehicle id="a" x="0" y="0"/>\n</timestep>\n<timestep time="-1">'
        '\n<vehicle id="b" x="0" y="0"/></timestep></fcd-export>',
        "FILE:6: t: is -1 after 0; rows must be in order of time",
    ),
    "fcd-malformed": (STEP + "</timestep>\n</fcd>", "FILE:4: malformed XML (mismatched tag); "),
    "fcd-truncated": (STEP, "FILE:3: malformed XML (no element found); write the file again"),
    "fcd-other": ("<routes>\n</routes>", "FILE:1: <routes>: is not SUMO FCD; the root must be "),
    "fcd-missing": (
        STEP + '<vehicle id="a" y="0"/>\n</timestep></fcd-export>',
        "FILE:3: x: is missing in <vehicle>; every <vehicle> must have it",
    ),
    "fcd-text": (
        STEP + '<vehicle id="a" x="0" y="?"/>\n</timestep></fcd-export>',
        "FILE:3: y: is '?'; must be a number",
    ),
    "fcd-time": (
        "<fcd-export>\n<timestep/></fcd-export>",
        "FILE:2: time: is missing in <timestep>",
    ),
    "fcd-outside": (
        '<fcd-export>\n<vehicle id="a" x="0" y="0"/></fcd-export>',
        "FILE:2: <vehicle>: stands outside <timestep>; it needs a time",
    ),
    "ns2-line": (
        START + "$ns_ at 1 setdest\n",
        "FILE:3: '$ns_ at 1 setdest' is not understood; expected '$node_(N) set X_ VALUE' or",
    ),
    "ns2-number": (
        START + '$ns_ at 1 "$node_(0) setdest 1 b 1"\n',
        "FILE:3: y: is 'b'; must be a number",
    ),
    "ns2-nan": (
        START + '$ns_ at 1 "$node_(0) setdest nan 1 1"\n',
        "FILE:3: x: is nan; must be a finite number",
    ),
    "ns2-start-nan": (
        "$node_(0) set X_ nan\n$node_(0) set Y_ 0\n",
        "FILE:1: X_: is nan; must be a finite number",
    ),
    "ns2-negative": (
        START + '$ns_ at -1 "$node_(0) setdest 1 1 1"\n',
        "FILE:3: t: is -1; time starts at 0",
    ),
    "ns2-backwards": (
        START + '$ns_ at 1 "$node_(0) setdest 1 1 -2"\n',
        "FILE:3: speed: is -2; must be 0 or more",
    ),
    "ns2-start": (
        '$node_(0) set X_ 0\n$ns_ at 1 "$node_(0) setdest 1 1 1"\n',
        "FILE:2: Y_: node '0' has no starting Y_; set it before its first setdest",
    ),
    "ns2-unordered": (
        START + '$ns_ at 2 "$node_(0) setdest 0 0 1"\n$ns_ at 1 "$node_(0) setdest 1 1 1"\n',
        "FILE:4: t: is 1 after 2; rows must be in order of time",
    ),
    "ns2-endless": (
        START + '$ns_ at 1 "$node_(0) setdest 1 1 1e-12"\n',
        "FILE:3: t: the walk arrives at t = 1.41421e+12; 100000000 positions are the most",
    ),
    "fcd-degrees": (
        '<?xml version="1.0"?>\n<!-- generated by Eclipse SUMO sumo\n<output>\n'
        '<fcd-output.geo value="true"/>\n</output>\n-->\n' + STEP + "</timestep></fcd-export>",
        "FILE:2: fcd-output.geo: is true, so x and y are degrees; must be false, for metres",
    ),
    "fcd-encoding": (
        '<?xml version="1.0" encoding="martian"?><fcd-export/>',
        "FILE:1: cannot be decoded (unknown encoding: martian); save it as UTF-8",
    ),
    "unknown": ("hello\n", "FILE: format: begins with 'hello', which is no known format; expected"),
    "nothing": ("", "FILE: holds nothing but blank lines and comments; expected SUMO FCD XML"),
    "events": (
        "t,node,action,network\n0,a,attach,A\n",
        "FILE: format: holds attachment events, no positions; name it as movement.events",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_by_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "trace", text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(caught.value).replace(str(path), "FILE").startswith(message)


def test_a_gzip_cut_short_is_a_trace_error(tmp_path: Path) -> None:
    path = tmp_path / "town.xml.gz"
    path.write_bytes((SCENARIOS / "town.fcd.xml.gz").read_bytes()[:50_000])
    with pytest.raises(TraceError, match=r"town\.xml\.gz: the gzip data is cut short or damaged"):
        read_trace(path)


def test_a_gzip_damaged_inside_is_a_trace_error(tmp_path: Path) -> None:
    data = bytearray((SCENARIOS / "town.fcd.xml.gz").read_bytes())
    data[20_000:20_050] = bytes(50)
    path = tmp_path / "town.xml.gz"
    path.write_bytes(data)
    with pytest.raises(TraceError, match=r"damaged|malformed|not "):
        read_trace(path)


def test_bytes_that_are_no_text_are_a_trace_error(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(HEAD.encode() + b"0,a\xff,0,0\n")
    with pytest.raises(TraceError, match=r"x\.csv:2: is not UTF-8 text"):
        read_trace(path)


def test_a_missing_file_is_a_trace_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none: cannot be read \(No such file or directory\)"):
        read_trace(tmp_path / "none")
