"""Scenarios in a program: loaded by name, changed in a line, and kept as a text."""

import pickle
import tomllib
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest

from mat_files.distributions import Constant, Empirical, Exponential, Normal, Uniform
from mat_files.errors import ScenarioError
from mat_files.library import find_scenario, shipped_scenarios
from mat_files.scenario import (
    About,
    CoverageModel,
    Grid,
    Ims,
    Movement,
    Network,
    Nodes,
    Scenario,
    Source,
    load_scenario,
)
from mat_files.scenario._load import scenario_from

BUILT = Scenario(
    format=1,
    scenario=About(name="built", description='with "quotes"\nand é', duration=4.0, seed=3),
    coverage=CoverageModel(
        grid=Grid(
            spacing=100, columns=2, rows=2, range=80, origin=(1.5, -2.0), address=Uniform(0, 1)
        )
    ),
    network=(
        Network(name="A", delay=Exponential(0.1), pool=ip_network("172.16.0.0/16")),
        Network(name="B", association=Normal(0.01, 0.003), address=Empirical((0.1, 0.25, 0.7))),
    ),
    nodes=Nodes(count=3, interfaces=1),
    ims=(
        Ims(name="one", serves=("mobile",), service=Constant(1 / 3)),
        Ims(name="two", serves=(ip_network("10.32.0.0/11"),), workers=4),
    ),
    protocol={"settle_time": 0.25},
)


def without_source(scenario: Scenario) -> dict[str, object]:
    return {name: getattr(scenario, name) for name in Scenario.model_fields}


@pytest.mark.parametrize("name", [*shipped_scenarios(), "built"])
def test_the_text_of_a_scenario_read_again_is_equal(name: str) -> None:
    scenario = BUILT if name == "built" else Scenario.load(name)
    again = scenario_from(Source(scenario.source.path, scenario.toml(), ()), None)
    assert without_source(again) == without_source(scenario)
    assert again.toml() == scenario.toml()


def test_a_text_has_only_what_is_not_default() -> None:
    assert tomllib.loads(BUILT.toml())["nodes"] == {"count": 3, "interfaces": 1}
    assert "dns" not in tomllib.loads(BUILT.toml())


def test_a_built_scenario_has_its_text_as_source() -> None:
    assert BUILT.source == Source(None, BUILT.toml(), ())


def test_a_copy_with_another_value_has_not_the_text_of_the_original() -> None:
    first = Scenario.load("first")
    copy = first.model_copy(update={"network": first.network[:2]})
    assert copy.source.path == first.source.path
    assert copy.source.text == copy.toml() != first.source.text
    assert len(first.networks) == 3
    assert len(copy.model_copy(update={"network": first.network[:1]}).networks) == 1
    assert first.model_copy().source == first.source


def test_loading_is_by_name_and_by_path() -> None:
    assert Scenario.load("first") == Scenario.load(find_scenario("first"))
    with pytest.raises(ScenarioError, match="twon: no such file; did you mean town"):
        Scenario.load("twon")


def test_a_change_is_what_set_would_do() -> None:
    changed = Scenario.load("first").changed({"nodes.interfaces": 2, "network.2.delay": 0.05})
    said = load_scenario(find_scenario("first"), ["nodes.interfaces=2", "network.2.delay=0.05"])
    assert changed == said
    assert changed.source.overrides == ("nodes.interfaces=2", "network.2.delay=0.05")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "1e-05"),
        (np.float64(0.25), "0.25"),
        (np.int64(3), "3"),
        (Uniform(0.1, 1 / 3), "{uniform = [0.1, 0.3333333333333333]}"),
        ({"normal": [1, 0.5]}, "{normal = [1, 0.5]}"),
    ],
)
def test_a_time_is_changed_to_a_number_a_table_or_a_distribution(value: object, text: str) -> None:
    changed = Scenario.load("first").changed({"network.1.delay": value})
    assert changed.source.overrides == (f"network.1.delay={text}",)


def test_whole_tables_are_changed() -> None:
    servers = [Ims(name="a-b", serves=("all",), workers=2)]
    changed = Scenario.load("first").changed({"ims": servers, "scenario.name": "x"})
    assert [(ims.name, ims.workers) for ims in changed.ims] == [("a-b", 2)]
    assert changed.source.overrides == ('ims=[{name = "a-b", workers = 2}]', 'scenario.name="x"')


def test_changes_of_changes_add_up_on_loaded_and_built_scenarios() -> None:
    for scenario in (Scenario.load("first"), BUILT, BUILT.model_copy(update={"network": ()})):
        changed = scenario.changed({"nodes.interfaces": 2}).changed({"scenario.seed": 8})
        assert (changed.nodes.interfaces, changed.scenario.seed) == (2, 8)
        assert changed.network == scenario.network


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nodes.interfaces": 3}, "nodes.interfaces=3: nodes.interfaces: is 3; must be 2 or less"),
        ({"nodes.interface": 1}, "nodes.interface=1: nodes.interface: unknown key; did you mean"),
        ({"network.9.delay": 1}, "network.9.delay=1: network has 3 elements, counted from 0"),
        ({"nodes.count": {1, 2}}, "nodes.count: is {1, 2}; a scenario holds numbers"),
        ({"ims": [{"name": "x", "serves": "mobile"}]}, "none serves the correspondents"),
        ({"movement.events": "no.csv"}, 'movement.events: is "no.csv"; there is no such file'),
    ],
)
def test_a_change_that_cannot_be_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        Scenario.load("first").changed(values)
    assert message in str(caught.value)


def test_a_built_scenario_is_checked_without_naming_lines_that_nobody_wrote() -> None:
    broken = BUILT.model_copy(update={"movement": Movement(events="no.csv")})
    with pytest.raises(ScenarioError) as caught:
        broken.changed({})
    assert (
        str(caught.value)
        == 'movement.events: is "no.csv"; there is no such file beside the scenario'
    )


def test_files_of_a_built_scenario_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.csv").write_text("t,node,action,network\n0,m,attach,A\n")
    monkeypatch.chdir(tmp_path)
    assert BUILT.changed({"movement.events": "here.csv"}).movement.events == "here.csv"


def test_an_error_survives_the_way_from_another_process() -> None:
    with pytest.raises(ScenarioError) as caught:
        Scenario.load("first").changed({"nodes.interfaces": 3})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.problems, str(again)) == (
        ScenarioError,
        caught.value.problems,
        str(caught.value),
    )
