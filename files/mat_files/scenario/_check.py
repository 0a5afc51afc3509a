"""What the fields of a scenario mean together: names that refer to each other, and sizes."""

import difflib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from mat.parameters import Parameters
from mat_files._toml import KeyPath, dotted
from mat_files.document import Table
from mat_files.errors import Problem, ScenarioError, shown
from mat_files.scenario._model import (
    SYSTEM_FAMILIES,
    Access,
    Crowd,
    Ims,
    IpNetwork,
    Network,
    RandomWaypoint,
    Scenario,
    Train,
)

Finding: TypeAlias = tuple[KeyPath, str]
"""Path of the field and what is wrong with it; what would be right."""

_WIDEST: Final = 1e7
"""Extent of generated movement, m."""
_FARTHEST: Final = 1e9
"""How far from x = y = 0 it may be, m: places a micrometre apart are still told apart there."""
_GREATEST: Final = 100_000
"""Speed of a walk, m/s, and its pause, s."""
_LOOKS: Final = 10_000_000
_WALKS: Final = 1_000_000
"""Of one node, in one run: what fits in memory easily."""
_ROWS: Final = 1_000_000
_LONGEST_LEASE: Final = (1 << 32) - 2
"""Seconds that DHCP can say; one more is for ever (RFC 2131, section 3.3)."""
_UNUSABLE: Final = 3
"""Addresses of a prefix that no node gets: the first, the last and the network's own."""


def findings(scenario: Scenario) -> list[Finding]:
    """Everything wrong between the fields of a scenario, each of which is valid by itself."""
    checks = (
        _duplicates,
        _grid_pool,
        _families,
        _dhcp,
        _movement,
        _correspondents,
        _queues,
        _traffic,
        _service,
        _shared_service,
        _background,
        _intervals,
        _capacity,
        _protocol,
        _system,
    )
    return list(itertools.chain.from_iterable(check(scenario) for check in checks))


def check_movement(scenario: Scenario, nodes: int, end: float) -> None:
    """What is known only once the movement is read: do its nodes have addresses, does it end?

    `end` in seconds. Raises `ScenarioError`.
    """
    found = [*_room(scenario, nodes), *_rows(scenario, end)]
    if found:
        place = str(scenario.source.path or "scenario")
        raise ScenarioError(Problem(place, dotted(path), what) for path, what in found)


def _duplicates(scenario: Scenario) -> Iterator[Finding]:
    yield from _repeated("network", [network.name for network in scenario.network])
    yield from _repeated("ims", [ims.name for ims in scenario.ims])
    named = [ims.name for ims in scenario.every_ims]
    if len({ims.name for ims in scenario.ims}) == len(scenario.ims):
        for name in sorted({name for name in named if named.count(name) > 1}):
            yield ("ims",), f"make a second {shown(name)}, by name and count; set another name"
    listed = {network.name for network in scenario.network}
    grid = {network.name for network in scenario.networks[len(scenario.network) :]}
    if clash := sorted(listed & grid):
        what = f"makes a network {shown(clash[0])}, which is listed too; set another prefix"
        yield ("coverage", "grid"), what


def _repeated(table: str, names: list[str]) -> Iterator[Finding]:
    for index, name in enumerate(names):
        if name in names[:index]:
            what = f"is {shown(name)} a second time; names must be unique"
            yield (table, index, "name"), what


def _grid_pool(scenario: Scenario) -> Iterator[Finding]:
    grid = scenario.coverage.grid
    if grid and grid.pool and grid.pool.num_addresses < grid.columns * grid.rows:
        what = f"is {grid.pool}, too small to divide among {grid.columns * grid.rows} networks"
        yield ("coverage", "grid", "pool"), what + "; give a shorter prefix"


def _families(scenario: Scenario) -> Iterator[Finding]:
    family = scenario.nodes.family
    prefixes = list(_prefixes(scenario))
    wrong = {path: prefix for path, prefix in prefixes if prefix.version != family}
    for path, prefix in wrong.items():
        yield path, f"is {prefix}, an IPv{prefix.version} prefix; nodes.family is {family}"
    yield from dict(_overlaps(prefixes)).items()


def _prefixes(scenario: Scenario) -> Iterator[tuple[KeyPath, IpNetwork]]:
    """Every prefix that addresses come from, given or by default."""
    yield ("nodes", "home_prefix"), scenario.mobile_prefix
    yield ("correspondents", "home_prefix"), scenario.correspondent_prefix
    yield from ((path, pool) for path, _, pool in _pools(scenario))


def _pools(scenario: Scenario) -> Iterator[tuple[KeyPath, Network, IpNetwork]]:
    """Every network's addresses, and where they are given."""
    listed = len(scenario.network)
    for index, network in enumerate(scenario.networks):
        path: KeyPath = ("network", index) if index < listed else ("coverage", "grid")
        if network.pool is not None:
            yield (*path, "pool"), network, network.pool


def _overlaps(prefixes: list[tuple[KeyPath, IpNetwork]]) -> Iterator[Finding]:
    """Neighbours in sorted order suffice: of two prefixes that overlap, one contains the other."""
    ordered = sorted(prefixes, key=lambda item: (item[1].version, item[1]))
    for (_, first), (path, second) in itertools.pairwise(ordered):
        if first.version == second.version and first.overlaps(second):
            yield path, f"is {second}, which overlaps {first}; prefixes must be separate"


def _dhcp(scenario: Scenario) -> Iterator[Finding]:
    """Where addresses come of an exchange."""
    places: list[tuple[KeyPath, Access]] = [
        (("network", index), network) for index, network in enumerate(scenario.network)
    ]
    if scenario.coverage.grid is not None:
        places.append((("coverage", "grid"), scenario.coverage.grid))
    for place, access in places:
        if access.dhcp is None:
            continue
        if "address" in access.model_fields_set:
            what = "is given beside dhcp, which is in place of that time; give one of the two"
            yield (*place, "address"), what
        if scenario.nodes.family == 6:
            what = "is DHCP for IPv4, and nodes.family is 6; leave it out and give address"
            yield (*place, "dhcp"), f"{what}: what DHCPv6 or SLAAC takes, as a time"
        if not access.lease.is_integer() or access.lease > _LONGEST_LEASE:
            what = f"is {access.lease:g}; must be a whole number, {_LONGEST_LEASE} or less"
            yield (*place, "lease"), f"{what}, as DHCP has it"


def _movement(scenario: Scenario) -> Iterator[Finding]:
    movement = scenario.movement
    given = movement.given
    for beside in given[1:]:
        yield ("movement", beside), f"is given beside {given[0]}; give one of the two"
    if not scenario.networks:
        yield ("network",), "is missing; give [[network]] tables or [coverage.grid]"
    if movement.origin and not (abs(movement.origin[0]) <= 90 and abs(movement.origin[1]) <= 180):
        what = f"is {shown(movement.origin)}; must be [latitude, longitude] in degrees"
        yield ("movement", "origin"), what
    yield from _generated(scenario)
    if movement.trace or movement.events:
        return
    if scenario.scenario.duration is None:
        why = "where movement is generated" if given else "where nothing moves"
        yield ("scenario", "duration"), f"is missing; it must be given {why}"
    if scenario.nodes.count == "trace":
        yield ("nodes", "count"), 'is "trace", but movement names no file; give a number or a file'


def _generated(scenario: Scenario) -> Iterator[Finding]:
    movement = scenario.movement
    if movement.random_waypoint:
        yield from _random_waypoint(scenario, movement.random_waypoint)
    if movement.train:
        yield from _train(scenario, movement.train)
    if movement.crowd and scenario.networks:
        yield from _crowd(scenario, movement.crowd)


def _random_waypoint(scenario: Scenario, model: RandomWaypoint) -> Iterator[Finding]:
    place: KeyPath = ("movement", "random_waypoint")
    if not all(1 <= side <= _WIDEST for side in model.size):
        what = f"is {shown(model.size)}; must be [width, height], both from 1 to {_WIDEST:.0f}"
        yield (*place, "size"), what
        return
    if not all(abs(side) <= _FARTHEST for side in model.origin):
        what = (
            f"is {shown(model.origin)}; must be [x, y], both from -{_FARTHEST:g} to {_FARTHEST:g}"
        )
        yield (*place, "origin"), what
        return
    for name, (low, high), least in (("speed", model.speed, 0.001), ("pause", model.pause, 0)):
        if not least <= low <= high <= _GREATEST:
            what = (
                f"is {shown((low, high))}; must be [least, greatest], from {least} to {_GREATEST}"
            )
            yield (*place, name), what
            return
    end = scenario.scenario.duration or 0.0
    if (looks := end / scenario.movement.step) > _LOOKS:
        what = f"makes {looks:.0f} looks around in {end:g} s; at most {_LOOKS} are possible"
        yield ("movement", "step"), f"{what}, so set a longer step"
    for walker in (model, model.around) if model.group > 1 else (model,):
        if (walks := end / (walker.mean_walk + walker.mean_pause)) > _WALKS:
            what = f"makes some {walks:.0f} walks of a node in {end:g} s; at most {_WALKS} are"
            yield (*place, "speed"), f"{what} possible, so set a slower speed or a longer pause"
            return


def _train(scenario: Scenario, train: Train) -> Iterator[Finding]:
    points = train.points([(network.x, network.y) for network in scenario.networks])
    path: KeyPath = ("movement", "train", "route")
    legs = [math.dist(first, second) for first, second in itertools.pairwise(points)]
    if not legs:
        has = f"has {len(points)} points" if train.route else "is missing, with one network"
        yield path, f"{has}; must be [x, y] points, two at least"
    elif not all(legs):
        what = "stays at a point" if train.route else "is missing, with networks at one place"
        yield path, f"{what}; must be [x, y] points, each away from the one before"
    elif sum(legs) > _WIDEST:
        yield path, f"is {sum(legs):g} m long; must be {_WIDEST:.0f} m or less"


def _crowd(scenario: Scenario, crowd: Crowd) -> Iterator[Finding]:
    place: KeyPath = ("movement", "crowd")
    names = [network.name for network in scenario.networks]
    leave, join = crowd.sides(names)
    for field, listed in (("leave", leave), ("join", join)):
        for index, name in enumerate(listed):
            if name not in names:
                what = f"is {shown(name)}, which is no network; there are: {_listed(names)}"
                yield (*place, field, index), what
    if not join:
        yield (*place, "join"), "is missing, and nodes begin on all networks; name where they go"
    turns = range(math.lcm(len(leave), len(join)) if join else 0)
    stay = next((i for i in turns if leave[i % len(leave)] == join[i % len(join)]), None)
    if stay is not None:
        what = f"lets node {stay + 1} go from {leave[stay % len(leave)]} to where it is"
        yield (*place, "join"), f"{what}; networks are left and joined in turn"
    if crowd.overlap and scenario.nodes.interfaces == 1:
        what = f"is {crowd.overlap:g}; must be 0 as nodes have one interface"
        yield (*place, "overlap"), f"{what}, or set nodes.interfaces = 2"


def _correspondents(scenario: Scenario) -> Iterator[Finding]:
    fixed = scenario.correspondents
    names = [network.name for network in scenario.networks]
    if fixed.network is not None and fixed.network not in names:
        what = f"is {shown(fixed.network)}, which is no network; there are: {_listed(names)}"
        yield ("correspondents", "network"), what
    if scenario.traffic.pairs == "correspondent" and not fixed.count:
        what = 'is "correspondent", but correspondents.count is 0; set that, or "mobile" or "none"'
        yield ("traffic", "pairs"), what


def _queues(scenario: Scenario) -> Iterator[Finding]:
    """A link without a rate takes every packet at once, so nothing waits for it."""
    links: list[tuple[KeyPath, Table, str]] = [
        (("correspondents",), scenario.correspondents, "queue"),
        *((("network", i), network, "queue") for i, network in enumerate(scenario.network)),
        *((("ims", i), ims, "link_queue") for i, ims in enumerate(scenario.ims)),
    ]
    if scenario.coverage.grid is not None:
        links.append((("coverage", "grid"), scenario.coverage.grid, "queue"))
    for path, link, field in links:
        if field in link.model_fields_set and getattr(link, "rate", None) is None:
            what = f"is {getattr(link, field)}, but there is no rate, so nothing waits"
            yield (*path, field), f"{what}; set a rate in bit/s, or leave {field} out"


def _traffic(scenario: Scenario) -> Iterator[Finding]:
    traffic, place = scenario.traffic, ("traffic",)
    most, why = _candidates(scenario)
    if traffic.pairs == "random" and most == 0:
        what = f"is {shown(traffic.among)}, and there is nobody, as {why}"
        yield (*place, "among"), f"{what}; set a count, or draw from others"
    elif most is not None and traffic.peers > most > 0:
        yield (*place, "peers"), f"is {traffic.peers}; must be {most} or less, as {why}"
    if traffic.kind == "onoff" and not traffic.on.mean:
        yield (*place, "on"), "is 0; must be greater than 0, or there is nothing to send"
    if traffic.events == "changes" and scenario.scenario.system != "mat":
        what = f'is "changes", but scenario.system is {shown(scenario.scenario.system)}'
        yield (*place, "events"), f'{what}; set "packets", as only MAT is told apart so finely'


def _candidates(scenario: Scenario) -> tuple[int | None, str]:
    """How many peers a mobile node can have, if that is limited and known, and why."""
    traffic, fixed, count = scenario.traffic, scenario.correspondents.count, scenario.nodes.count
    if traffic.pairs == "none":
        return None, ""
    if traffic.pairs == "mobile":
        return 1, 'pairs is "mobile"'
    of_fixed = f"correspondents.count is {fixed}"
    if traffic.pairs == "correspondent" or traffic.among == "correspondents":
        return fixed, of_fixed
    if count == "trace":
        return None, ""
    if traffic.among == "mobile":
        return count - 1, f"nodes.count is {count}"
    return count - 1 + fixed, f"nodes.count is {count} and {of_fixed}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "none"


def _service(scenario: Scenario) -> Iterator[Finding]:
    """Every home address has exactly one IMS."""
    if not scenario.ims:
        yield ("ims",), "is empty; at least one [[ims]] is needed"
        return
    served = [(i, prefix) for i, ims in enumerate(scenario.ims) for prefix in _own(scenario, ims)]
    paths: list[tuple[KeyPath, IpNetwork]] = [(("ims", i, "serves"), p) for i, p in served]
    yield from _overlaps(paths)
    homes: list[tuple[str, IpNetwork]] = [("mobile nodes", scenario.mobile_prefix)]
    if scenario.correspondents.count:
        homes.append(("correspondents", scenario.correspondent_prefix))
    for party, home in homes:
        if not _covered(home, [prefix for _, prefix in served]):
            yield ("ims",), f"none serves the {party} ({home}) entirely; add it to one's serves"


def _shared_service(scenario: Scenario) -> Iterator[Finding]:
    """IMS that share nodes share all of those that are mobile, or all correspondents."""
    homes = (scenario.mobile_prefix, scenario.correspondent_prefix)
    for index, ims in enumerate(scenario.ims):
        if ims.count > 1 and not set(scenario.served(ims)) <= set(homes):
            what = f"is {ims.count}, but serves names prefixes, among which nodes are not spread"
            yield ("ims", index, "count"), f'{what}; serve "mobile", "correspondents" or "all"'


def _background(scenario: Scenario) -> Iterator[Finding]:
    load = scenario.background
    if load.nodes and not load.rate:
        yield ("background",), "has nodes that request nothing; give update, query or notify"
    if load.nodes == 1 and load.notify:
        yield ("background", "nodes"), "is 1, who has no peer to notify; must be 2 or more"
    if load.nodes and scenario.scenario.system != "mat":
        what = f"is {load.nodes}, whose requests are for an IMS; must be 0"
        yield ("background", "nodes"), f'{what}, or set scenario.system = "mat"'


def _intervals(scenario: Scenario) -> Iterator[Finding]:
    if end := scenario.scenario.duration:
        yield from _rows(scenario, end)


def _rows(scenario: Scenario, end: float) -> Iterator[Finding]:
    """The table `ims` of a run that ends then (s) can be held."""
    about, rows = scenario.scenario, end / scenario.interval(end)
    if rows <= _ROWS:
        return
    many = f"{rows:.9g} rows for each IMS; at most {_ROWS} are possible"
    if about.interval:
        yield ("scenario", "interval"), f"makes {many}, so set a longer interval"
    elif about.duration:
        yield ("scenario", "duration"), f"is {end:g}, which makes {many}, so set a shorter one"
    else:
        what = f"is missing, and the movement ends at t = {end:g}, which makes {many}"
        yield ("scenario", "duration"), f"{what}; count time from its begin, not from 1970"


def _own(scenario: Scenario, ims: Ims) -> Iterable[IpNetwork]:
    """What an IMS serves, without the prefixes of it that lie within others of its own."""
    prefixes = scenario.served(ims)
    return [p for p in prefixes if not any(q != p and _within(p, q) for q in prefixes)]


def _within(inner: IpNetwork, outer: IpNetwork) -> bool:
    same = inner.version == outer.version
    return same and inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)


def _covered(home: IpNetwork, prefixes: list[IpNetwork]) -> bool:
    """Whether separate `prefixes` contain all of `home` between them."""
    same = [prefix for prefix in prefixes if prefix.version == home.version]
    if any(_within(home, prefix) for prefix in same):
        return True
    inside = sum(prefix.num_addresses for prefix in same if prefix.overlaps(home))
    return inside >= home.num_addresses


def _capacity(scenario: Scenario) -> Iterator[Finding]:
    count = scenario.nodes.count
    if count != "trace":
        yield from _room(scenario, count)
    fixed = scenario.correspondents.count
    if _most(scenario, scenario.correspondent_prefix) < fixed:
        what = f"is {scenario.correspondent_prefix}, too small for {fixed} correspondents"
        yield ("correspondents", "home_prefix"), what + "; give a shorter prefix"


def _most(scenario: Scenario, home: IpNetwork) -> int:
    """Nodes that a home prefix has addresses for."""
    shares = scenario.shares(home)
    return sum(max(0, share.num_addresses - _UNUSABLE) for share in shares)


def _room(scenario: Scenario, nodes: int) -> Iterator[Finding]:
    """Home prefix and each pool hold all nodes: they may all come to one network.

    A DHCP server is a model of what happens where they do not: it needs one address to give.
    """
    home, every = scenario.mobile_prefix, nodes + scenario.background.nodes
    if _most(scenario, home) < every:
        what = f"is {home}, too small for {every} nodes; give a shorter prefix"
        yield ("nodes", "home_prefix"), what
    pools = {path: (network, prefix) for path, network, prefix in _pools(scenario)}
    for path, (network, prefix) in pools.items():
        least = nodes if network.dhcp is None else 1
        if prefix.num_addresses - _UNUSABLE < least:
            yield path, f"is {prefix}, too small for {least} nodes; give a shorter prefix"


def _system(scenario: Scenario) -> Iterator[Finding]:
    """What the systems that MAT is compared with cannot do."""
    system, family = scenario.scenario.system, scenario.nodes.family
    if SYSTEM_FAMILIES.get(system, family) != family:
        what = f"is {shown(system)}, which is for IPv{SYSTEM_FAMILIES[system]}"
        yield ("scenario", "system"), f"{what}; nodes.family is {family}"
    if system == "mat":
        return
    if scenario.traffic.established:
        what = "is true; must be false, as scenario.system is"
        yield ("traffic", "established"), f"{what} {shown(system)}"
    for index, ims in enumerate(scenario.ims):
        if ims.replicas > 1:
            what = f"is {ims.replicas}; must be 1, as scenario.system is {shown(system)}"
            yield ("ims", index, "replicas"), f"{what}, whose servers have none"


def _protocol(scenario: Scenario) -> Iterator[Finding]:
    """Parameters that exist, greater than 0, and whole where they count something."""
    known = {name: default for name, default, _, _ in Parameters.table()}
    for name, value in scenario.protocol.items():
        path = ("protocol", name)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield path, f"no such parameter; {hint}docs/protocol.md lists them"
        elif value <= 0:
            yield path, f"is {value:g}; must be greater than 0"
        elif isinstance(known[name], int) and not value.is_integer():
            yield path, f"is {value:g}; must be a whole number"
