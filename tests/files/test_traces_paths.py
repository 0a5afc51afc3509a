"""Traces that are paths: BonnMotion and GPX, looked at every step."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from mat_files.errors import TraceError
from mat_files.traces import detect_format, read_trace, trace_files
from mat_files.traces._gpx import east_and_north
from tests.files.test_traces import FCD, rows, write

BONNMOTION = "0.0 0.0 0.0 2.0 4.0 2.0\n1.0 5.0 5.0 2.5 5.0 8.0 3.0 5.0 8.0\n"
GPX = """<?xml version="1.0" encoding="UTF-8"?>
<gpx version="1.1" creator="a receiver" xmlns="http://www.topografix.com/GPX/1/1">
  <metadata><name>not a node</name><time>2001-01-01T00:00:00Z</time></metadata>
  <wpt lat="50" lon="8"><name>nor this</name><time>2001-01-01T00:00:00Z</time></wpt>
  <trk><name>anna</name>
    <trkseg>
      <trkpt lat="50.00000" lon="8.0000"><ele>99</ele><time>2026-05-01T10:00:00Z</time></trkpt>
      <trkpt lat="50.00002" lon="8.0000"><time>2026-05-01T12:00:02+02:00</time></trkpt>
    </trkseg>
    <trkseg>
      <trkpt lat="50.00003" lon="8.0000"><time>2026-05-01T10:00:03.5</time></trkpt>
    </trkseg>
  </trk>
  <trk>
    <trkseg>
      <trkpt lat="50.00000" lon="8.0001"><time>2026-05-01T10:00:01Z</time></trkpt>
      <trkpt lat="50.00000" lon="8.0003"><time>2026-05-01T10:00:03Z</time>
        <extensions><name>nor that</name><time>?</time></extensions></trkpt>
    </trkseg>
  </trk>
</gpx>
"""

# --- BonnMotion ---


def test_a_bonnmotion_node_stands_before_its_first_and_after_its_last_waypoint(
    tmp_path: Path,
) -> None:
    trace = read_trace(write(tmp_path / "a.movements", BONNMOTION))
    assert rows(trace) == [
        (0, "0", 0, 0),
        (0, "1", 5, 5),
        (1, "0", 2, 1),
        (1, "1", 5, 5),
        (2, "0", 4, 2),
        (2, "1", 5, 7),
        (3, "0", 4, 2),
        (3, "1", 5, 8),
    ]


def test_the_step_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.movements", "0 0 0 1 4 0\n")
    assert [x for _, _, x, _ in rows(read_trace(path, step=0.25))] == [0, 1, 2, 3, 4]
    assert read_trace(path, step=0.25).step == 0.25


PLACES = st.floats(-1e5, 1e5)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0.1, 50), PLACES, PLACES, PLACES), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    )
)
def test_bonnmotion_with_heights_is_the_same_movement_in_the_plane(
    tmp_path_factory: pytest.TempPathFactory,
    nodes: list[list[tuple[float, float, float, float]]],
) -> None:
    flat, high = "", "#3D\n"
    for steps in nodes:
        times = np.cumsum([step[0] for step in steps]).tolist()
        points = [(t, x, y, z) for t, (_, x, y, z) in zip(times, steps, strict=True)]
        flat += " ".join(f"{t!r} {x!r} {y!r}" for t, x, y, _ in points) + "\n"
        high += " ".join(f"{t!r} {x!r} {y!r} {z!r}" for t, x, y, z in points) + "\n"
    folder = tmp_path_factory.mktemp("bonnmotion")
    first = read_trace(write(folder / "flat", flat), step=3.0)
    second = read_trace(write(folder / "high", high), step=3.0)
    assert rows(first) == rows(second)


def test_heights_are_told_by_the_number_of_values_or_else_by_the_times(tmp_path: Path) -> None:
    eight = read_trace(write(tmp_path / "8", "0 1 2 3 1 1 2 3\n"))
    assert rows(eight) == [(0, "0", 1, 2), (1, "0", 1, 2)]
    # Twelve values: as four waypoints in the plane the times would be 0, 100, 1, 100.
    twelve = read_trace(write(tmp_path / "12", "0 7 9 100 1 7 9 100 2 7 9 100\n"))
    assert rows(twelve) == [(0, "0", 7, 9), (1, "0", 7, 9), (2, "0", 7, 9)]
    flat = read_trace(write(tmp_path / "f", "0 7 9 1 7 9 2 7 9 3 7 9\n"))
    assert [t for t, *_ in rows(flat)] == [0, 1, 2, 3]


def test_a_waypoint_given_twice_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "0 0 0 1 1 1 1 1 1 2 2 2\n")
    assert [x for _, _, x, _ in rows(read_trace(path))] == [0, 1, 2]


# --- GPX ---


def test_a_track_is_a_node_in_metres_about_the_first_point(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "walk.gpx", GPX))
    # A second of arc on the meridian is 30.9 m, so 0.00001° is 1.11 m; at 50° N one of longitude
    # is 0.717 m.
    found = [(t, node, round(x, 2), round(y, 2)) for t, node, x, y in rows(trace)]
    assert found == [
        (0, "anna", 0, 0),
        (1, "anna", 0, 1.11),
        (1, "walk", 7.17, 0),
        (2, "anna", 0, 2.22),
        (2, "walk", 14.34, 0),
        (3, "anna", 0, 2.97),
        (3, "walk", 21.51, 0),
    ]


def test_the_origin_can_be_chosen(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "walk.gpx", GPX), origin=(49.99, 8.0))
    assert trace.x[0] == pytest.approx(0, abs=1e-9)
    assert trace.y[0] == pytest.approx(1112.29, abs=0.01)


def test_a_folder_of_tracks_is_one_movement_with_one_begin_and_one_origin(tmp_path: Path) -> None:
    later = GPX.replace("T10:00:0", "T10:00:1").replace("T12:00:02", "T12:00:12")
    write(tmp_path / "a.gpx", later)
    (tmp_path / "b.gpx.gz").write_bytes(gzip.compress(GPX.encode()))
    write(tmp_path / "notes.txt", "not a track")
    trace = read_trace(tmp_path)
    assert trace.nodes == ("anna#2", "b", "anna", "a")  # in order of appearance
    assert trace.presence() == {
        "anna#2": [(0, 3)],
        "b": [(1, 3)],
        "anna": [(10, 13)],
        "a": [(11, 13)],
    }
    assert [file.name for file in trace_files(tmp_path)] == ["a.gpx", "b.gpx.gz"]


def test_between_segments_a_node_is_absent_where_that_is_asked_for(tmp_path: Path) -> None:
    text = GPX.replace("10:00:03.5", "10:00:08")
    text = text.replace(
        '<trkpt lat="50.00003" lon="8.0000"><time>2026-05-01T10:00:08</time></trkpt>',
        '<trkpt lat="50.00003" lon="8.0"><time>2026-05-01T10:00:08Z</time></trkpt>\n'
        '<trkpt lat="50.00003" lon="8.0"><time>2026-05-01T10:00:09Z</time></trkpt>',
    )
    trace = read_trace(write(tmp_path / "a.gpx", text), gaps="absent")
    assert trace.presence()["anna"] == [(0, 2), (8, 9)]


@pytest.mark.parametrize("latitude", [0.0, 50.0, -85.0])
@pytest.mark.parametrize(("degrees", "error"), [(0.09, 0.005), (0.45, 0.55), (0.9, 4.5)])
def test_the_plane_is_as_wrong_as_stated(latitude: float, degrees: float, error: float) -> None:
    """Against the length of the meridian, by integration of its radius."""
    major, e2 = 6378137.0, 0.0066943799901413165

    def radius(phi: float) -> float:
        return major * (1 - e2) / math.pow(1 - e2 * math.sin(phi) ** 2, 1.5)

    there = np.array([latitude + degrees])
    arc, _ = quad(radius, math.radians(latitude), math.radians(there[0]), epsabs=1e-9)
    x, y = east_and_north(there, np.zeros(1), (latitude, 0.0))
    assert x[0] == pytest.approx(0, abs=1e-6)
    assert 0 < arc - y[0] < error
    assert arc - y[0] == pytest.approx(arc**3 / 6 / 6.37e6**2, rel=0.03)


def test_east_is_the_length_of_the_parallel() -> None:
    x, y = east_and_north(np.array([60.0]), np.array([8.1]), (60.0, 8.0))
    parallel = 6378137 / math.sqrt(1 - 0.00669438 * 0.75) * 0.5 * math.radians(0.1)
    assert x[0] == pytest.approx(parallel, abs=0.01)
    assert 0 < y[0] < 5  # the parallel bends towards the pole


def test_paths_are_recognised_by_content(tmp_path: Path) -> None:
    prefixed = '<!-- <fcd-export> -->\n<g:gpx xmlns:g="x"/>'
    texts = (BONNMOTION, "# note\n" + BONNMOTION, GPX, prefixed, FCD)
    found = [detect_format(write(tmp_path / "x", text)) for text in texts]
    assert found == ["bonnmotion", "bonnmotion", "gpx", "gpx", "fcd"]


# --- bad input ---

POINT = '<trkpt lat="1" lon="2"><time>2026-05-01T10:00:00Z</time></trkpt>\n'
TRACK = f"<gpx>\n<trk><trkseg>\n{POINT}"
END = "</trkseg></trk></gpx>"
BAD = {
    "bonn-text": ("0 0 0\n0 0 x\n", "FILE:2: value 3: is 'x'; must be a number"),
    "bonn-count": (
        "0 0 0\n0 0 0 1\n",
        "FILE:2: has 4 values, which waypoints of 't x y' do not make; mend the line",
    ),
    "bonn-five": (
        "0 0 0 1 1\n",
        "FILE:1: has 5 values, which waypoints of 't x y' or 't x y z' do not make",
    ),
    "bonn-3d": (
        "#3D\n0 0 0 1 1 1\n",
        "FILE:2: has 6 values, which waypoints of 't x y z' do not make",
    ),
    "bonn-unordered": (
        "0 0 0 5 1 1 4 2 2\n",
        "FILE:1: t: is 4 in waypoint 3, after 5; waypoints are in order of time",
    ),
    "bonn-two-places": (
        "0 0 0 5 1 1 5 2 2\n",
        "FILE:1: t: is 5 in waypoints 2 and 3, at two places; one place per time",
    ),
    "bonn-nan": (
        "0 0 0\n0 0 0 1 0 nan\n",
        "FILE:2: y: is nan in waypoint 2; must be a finite number",
    ),
    "bonn-negative": ("-1 0 0 1 1 1\n", "FILE:1: t: is -1; time starts at 0"),
    "bonn-endless": (
        "0 0 0\n0 0 0 1e12 1 1\n",
        "FILE:2: t: the movement ends at t = 1e+12; 100000000 positions are the most, so shorten",
    ),
    "gpx-other": ("<!-- <gpx> --><kml/>", "FILE:1: <kml>: is not SUMO FCD; the root must be"),
    "gpx-empty": ("<gpx>\n</gpx>", "FILE: holds no track point; a track needs <trkpt> with <time>"),
    "gpx-time": (
        f'{TRACK}<trkpt lat="1" lon="2"><ele>3</ele>\n</trkpt>{END}',
        "FILE:4: time: is missing in <trkpt>; every point must have one",
    ),
    "gpx-date": (
        TRACK.replace("2026-05-01T10", "yesterday") + END,
        "FILE:3: time: is 'yesterday:00:00Z'; must be a date and time such as 20",
    ),
    "gpx-latitude": (
        f'{TRACK}<trkpt lat="91" lon="2"/>{END}',
        "FILE:4: lat: is 91; must be from -90 to 90 degrees",
    ),
    "gpx-nan": (
        f'{TRACK}<trkpt lat="1" lon="nan"/>{END}',
        "FILE:4: lon: is nan; must be from -180 to 180 degrees",
    ),
    "gpx-missing": (f'{TRACK}<trkpt lon="2"/>{END}', "FILE:4: lat: is missing in <trkpt>"),
    "gpx-number": (
        f'{TRACK}<trkpt lat="N" lon="2"/>{END}',
        "FILE:4: lat: is 'N'; must be a number",
    ),
    "gpx-unordered": (
        TRACK + POINT.replace("10:00:00", "09:59:59") + END,
        "FILE:4: time: is 2026-05-01T09:59:59Z after 2026-05-01T10:00:00Z; points must be in order",
    ),
    "gpx-twice": (
        TRACK + POINT + END,
        "FILE:4: time: is 2026-05-01T10:00:00Z at two points; one point per track and time",
    ),
    "gpx-two-times": (
        TRACK.replace("</time>", "</time>\n<time>2026-05-01T10:00:01Z</time>") + END,
        "FILE:4: time: is given twice in <trkpt>; every point has one",
    ),
    "gpx-gap": (
        f"{TRACK}</trkseg>\n<trkseg>\n" + POINT.replace("10:00:00", "10:00:09") + END,
        "FILE:6: time: nothing was recorded between 2026-05-01T10:00:00Z and 2026-05-01T10:00:09Z",
    ),
    "gpx-far": (
        TRACK + POINT.replace('"2"', '"4.5"').replace("00:00Z", "00:01Z") + END,
        "FILE:4: lat: the point 1, 4.5 is more than 200 km from the origin 1, 2; set movement",
    ),
    "gpx-short": (
        TRACK + f"</trkseg></trk><trk><trkseg>{POINT.replace('00:00Z', '00:00.4Z')}{END}",
        "FILE:4: t: 'FILE#2' is there for less than a step of 1 s; set a shorter movement.step",
    ),
    "gpx-endless": (
        TRACK + POINT.replace("2026", "9026") + END,
        "FILE:3: t: the movement ends at t = 2.20899e+11; 100000000 positions are the most",
    ),
    "gpx-outside": (
        f"<gpx>\n{POINT}</gpx>",
        "FILE:2: <trkpt>: stands outside <trkseg> of a <trk>; it needs a track",
    ),
    "gpx-entity": (
        f'<!DOCTYPE gpx [\n<!ENTITY a "b">]>{TRACK}{END}',
        "FILE:2: <!DOCTYPE>: declares the entity 'a'; write the file without a document type",
    ),
    "fcd-entity": (
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><fcd-export/>',
        "FILE:1: <!DOCTYPE>: declares the entity 'a'",
    ),
    "gpx-malformed": (TRACK, "FILE:4: malformed XML (no element found); write the file again"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_paths_are_named_by_file_line_and_field(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path / "trace", text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    found = str(caught.value).replace(str(path), "FILE").replace("'trace", "'FILE")
    assert found.startswith(message)


def test_a_folder_without_tracks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"is a directory without any \.gpx file; name a trace"):
        read_trace(tmp_path)
