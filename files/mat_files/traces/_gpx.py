"""GPX 1.0 and 1.1: tracks that a receiver recorded, one node per track.

A track's segments are presences: within one the points are connected, between two the receiver was
off or without reception (so the GPX schema says), which is a gap. Time starts at the earliest point
of all tracks. Waypoints and routes are not movement and not read.

Latitude and longitude (WGS 84) become metres east (x) and north (y) of an origin on the plane that
touches the ellipsoid there; heights are not used. A distance d from the origin comes out short by
d³/6R²: 4 mm at 10 km, 0.5 m at 50 km, 4 m at 100 km. Farther than 200 km is refused.
Format: https://www.topografix.com/GPX/1/1/
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias, final
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from mat_files.errors import TraceError, trace_error
from mat_files.traces._paths import Stretch, sampled
from mat_files.traces._text import number
from mat_files.traces._trace import GAP_FACTOR, FloatArray, Gaps, Trace
from mat_files.traces._xml import fed, xml_parser

Origin: TypeAlias = tuple[float, float]
"""Latitude and longitude, degrees."""

FARTHEST: Final = 200_000.0
"""Distance from the origin up to which the plane stands for the Earth, m: 0.02 % short there."""

_SEMI_MAJOR: Final = 6378137.0
"""WGS 84, m."""
_FLATTENING: Final = 1 / 298.257223563
_ECCENTRICITY_2: Final = _FLATTENING * (2 - _FLATTENING)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LIMITS: Final = {"lat": 90.0, "lon": 180.0}


@final
@dataclass(slots=True)
class _Segment:
    """Points: time in µs since 1970, degrees, and the line of each."""

    time: "array[int]" = field(default_factory=lambda: array("q"))
    latitude: "array[float]" = field(default_factory=lambda: array("d"))
    longitude: "array[float]" = field(default_factory=lambda: array("d"))
    line: "array[int]" = field(default_factory=lambda: array("q"))


@final
@dataclass(slots=True)
class _Track:
    path: Path
    name: str = ""
    segments: list[_Segment] = field(default_factory=list[_Segment])


def read_gpx(paths: Sequence[Path], step: float, gaps: Gaps, origin: Origin | None) -> Trace:
    """The tracks of some files, looked at every `step` seconds from the earliest point on.

    `origin` is where x = y = 0; by default the first point of the first file. A node is named by
    its track, or else its file; the second of a name has `#2` behind it.
    """
    tracks = [track for path in paths for track in _tracks(path)]
    if not tracks:
        raise trace_error(
            paths[0], 0, "", "holds no track point; a track needs <trkpt> with <time>"
        )
    first = tracks[0].segments[0]
    place = origin or (first.latitude[0], first.longitude[0])
    begin = min(track.segments[0].time[0] for track in tracks)
    stretches = [
        _stretch(track.path, node, segments, begin, place)
        for node, track in enumerate(tracks)
        for segments in _connected(track, step, gaps)
    ]
    return sampled(_names(tracks), stretches, step)


def east_and_north(
    latitude: FloatArray, longitude: FloatArray, origin: Origin
) -> tuple[FloatArray, FloatArray]:
    """Metres east and north of `origin` on the plane that touches the ellipsoid there.

    All in degrees. Points from the other half of the Earth come out at no useful place.
    """
    phi, lam = math.radians(origin[0]), math.radians(origin[1])
    here = _geocentric(np.radians([origin[0]]), np.radians([origin[1]]))
    dx, dy, dz = _geocentric(np.radians(latitude), np.radians(longitude)) - here
    outward = math.cos(lam) * dx + math.sin(lam) * dy
    east = -math.sin(lam) * dx + math.cos(lam) * dy
    return east, math.cos(phi) * dz - math.sin(phi) * outward


def _geocentric(phi: FloatArray, lam: FloatArray) -> FloatArray:
    """Earth-centred coordinates of points on the ellipsoid, m; one row per axis."""
    normal = _SEMI_MAJOR / np.sqrt(1 - _ECCENTRICITY_2 * np.sin(phi) ** 2)
    return np.array(
        [
            normal * np.cos(phi) * np.cos(lam),
            normal * np.cos(phi) * np.sin(lam),
            normal * (1 - _ECCENTRICITY_2) * np.sin(phi),
        ]
    )


def _names(tracks: Sequence[_Track]) -> list[str]:
    """Unique names, though one that has `#2` behind it may meet another that is called so."""
    used = Counter[str]()
    names: dict[str, None] = {}
    for track in tracks:
        name = track.name or track.path.name.removesuffix(".gz").removesuffix(".gpx")
        used[name] += 1
        wanted = name if used[name] == 1 else f"{name}#{used[name]}"
        while wanted in names:
            used[name] += 1
            wanted = f"{name}#{used[name]}"
        names[wanted] = None
    return list(names)


def _connected(track: _Track, step: float, gaps: Gaps) -> Iterator[list[_Segment]]:
    """The track's segments, those together that follow each other without a gap."""
    together = track.segments[:1]
    for before, after in zip(track.segments, track.segments[1:], strict=False):
        if (after.time[0] - before.time[-1]) / 1e6 <= GAP_FACTOR * step:
            together.append(after)
            continue
        if gaps == "error":
            raise _gap(track, before, after)
        yield together
        together = [after]
    yield together


def _gap(track: _Track, before: _Segment, after: _Segment) -> TraceError:
    what = (
        f"nothing was recorded between {_shown(before.time[-1])} and {_shown(after.time[0])}, where"
        ' a segment ends; join the segments, or set movement.gaps = "absent"'
    )
    return trace_error(track.path, after.line[0], "time", what)


def _stretch(
    path: Path, node: int, segments: Sequence[_Segment], begin: int, origin: Origin
) -> Stretch:
    time = (np.concatenate([segment.time for segment in segments]) - begin) / 1e6
    latitude = np.concatenate([segment.latitude for segment in segments])
    longitude = np.concatenate([segment.longitude for segment in segments])
    x, y = east_and_north(latitude, longitude, origin)
    line = np.concatenate([segment.line for segment in segments])
    if (far := np.flatnonzero(_far(latitude, longitude, origin))).size:
        what = (
            f"the point {latitude[far[0]]:g}, {longitude[far[0]]:g} is more than"
            f" {FARTHEST / 1000:g} km from the origin {origin[0]:g}, {origin[1]:g};"
            " set movement.origin, or read the tracks apart"
        )
        raise trace_error(path, int(line[far[0]]), "lat", what)
    return Stretch(node, time, x, y, path, int(line[0]))


def _far(latitude: FloatArray, longitude: FloatArray, origin: Origin) -> NDArray[np.bool_]:
    """Which points are too far from the origin, in a straight line through the Earth."""
    here = _geocentric(np.radians([origin[0]]), np.radians([origin[1]]))
    away = _geocentric(np.radians(latitude), np.radians(longitude)) - here
    return np.asarray((away**2).sum(axis=0) > FARTHEST**2)


# ---- reading -------------------------------------------------------------------------------------


def _tracks(path: Path) -> list[_Track]:
    parser = xml_parser(path)
    elements = _Elements(path, parser)
    for _ in fed(path, parser):
        pass
    return [track for track in elements.tracks if track.segments]


@final
class _Elements:
    """Collects tracks; names of elements count without their namespace's prefix."""

    def __init__(self, path: Path, parser: expat.XMLParserType) -> None:
        self._path = path
        self._parser = parser
        self._open: list[str] = []
        self._text = ""
        self._place = (0.0, 0.0)
        self._point_line = 0
        self._timed = False
        self._last: int | None = None
        self._fresh = True
        self.tracks: list[_Track] = []
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if not self._open and name != "gpx":
            raise self._error(f"<{tag}>", "is not GPX; the root must be <gpx>")
        self._open.append(name)
        self._text = ""
        if name == "trk":
            self.tracks.append(_Track(self._path))
            self._last = None
        elif name == "trkseg":
            self._fresh = True
        elif name == "trkpt":
            self._point(attributes)

    def _end(self, _tag: str) -> None:
        inside, name = self._open[-2:-1], self._open[-1]
        if inside == ["trk"] and name == "name":
            self.tracks[-1].name = " ".join(self._text.split())
        elif inside == ["trkpt"] and name == "time":
            self._time()
        elif name == "trkpt" and not self._timed:
            what = "is missing in <trkpt>; every point must have one"
            raise trace_error(self._path, self._point_line, "time", what)
        self._open.pop()

    def _characters(self, text: str) -> None:
        self._text += text

    def _point(self, attributes: dict[str, str]) -> None:
        if self._open[-3:-1] != ["trk", "trkseg"]:
            raise self._error("<trkpt>", "stands outside <trkseg> of a <trk>; it needs a track")
        self._place = self._degrees(attributes, "lat"), self._degrees(attributes, "lon")
        self._point_line = self._parser.CurrentLineNumber
        self._timed = False

    def _degrees(self, attributes: dict[str, str], name: str) -> float:
        text = attributes.get(name, "")
        if not text:
            raise self._error(name, "is missing in <trkpt>; every <trkpt> must have it")
        value = number(self._path, self._parser.CurrentLineNumber, name, text)
        limit = _LIMITS[name]
        if not -limit <= value <= limit:
            raise self._error(name, f"is {text}; must be from {-limit:g} to {limit:g} degrees")
        return value

    def _time(self) -> None:
        now = self._moment(self._text.strip())
        if self._timed:
            raise self._error("time", "is given twice in <trkpt>; every point has one")
        if self._last is not None and now <= self._last:
            raise self._error("time", self._not_after(now, self._last))
        self._last = now
        self._timed = True
        track = self.tracks[-1]
        if self._fresh:
            track.segments.append(_Segment())
            self._fresh = False
        segment = track.segments[-1]
        segment.time.append(now)
        segment.latitude.append(self._place[0])
        segment.longitude.append(self._place[1])
        segment.line.append(self._point_line)

    @staticmethod
    def _not_after(now: int, last: int) -> str:
        if now == last:
            return f"is {_shown(now)} at two points; one point per track and time"
        return f"is {_shown(now)} after {_shown(last)}; points must be in order of time"

    def _moment(self, text: str) -> int:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            what = f"is {text[:40]!r}; must be a date and time such as 2026-11-25T08:30:00Z"
            raise self._error("time", what) from None
        # GPX times are in UTC, even where a file does not say so.
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // _MICROSECOND

    def _error(self, field: str, what: str) -> TraceError:
        return trace_error(self._path, self._parser.CurrentLineNumber, field, what)


def _shown(time: int) -> str:
    return (_EPOCH + time * _MICROSECOND).isoformat().replace("+00:00", "Z")
