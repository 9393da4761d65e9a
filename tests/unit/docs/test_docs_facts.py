"""Facts on hand-written pages that the code decides."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from glebe.node.simulated import scenario
from glebe.platform.jobspec import JobRequest, build
from glebe.platform.simulation.faults import FaultRates
from glebe.queueing.picture.runtimes import SPREAD, UNKNOWN

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "glebe"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def fleet_fields() -> set[str]:
    """What the parser of the fleet file lets pass, on any level."""
    tree = ast.parse((SOURCE / "node/fleet.py").read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    found = [a.value for c in calls if c.func.attr == "only" for a in c.args if isinstance(a, ast.Constant)]  # type: ignore[attr-defined]
    return {str(name) for name in found}


@pytest.mark.parametrize("field", sorted(fleet_fields()))
def test_every_field_of_the_fleet_file_is_documented(field: str) -> None:
    assert re.search(rf"[`.]{field}`|^{field}:|## {field}:|`{field}", page("fleet-file.md"), re.MULTILINE) or (
        field == "metadata"  # accepted as in every object, and not read
    )


def test_all_of_a_scenario_is_documented() -> None:
    text = page("simulated-nodes.md").split("## Scenarios")[1]
    deeds = {*scenario.DEEDS, *(name for further in scenario.DEEDS.values() for name in further)}
    for word in sorted({*deeds, *scenario._NODE_FIELDS, *scenario._POD_FIELDS, *scenario.WISHES}):
        assert f"`{word}`" in text, word


def test_the_rendezvous_environment_is_documented() -> None:
    _, job = build(JobRequest(name="n", command=["x"], nodes=2, gpus_per_node=8))
    container = job["spec"]["template"]["spec"]["containers"][0]
    for variable in container["env"]:
        assert f"`{variable['name']}`" in page("concepts.md")


def test_every_variable_of_glebe_is_documented() -> None:
    pages = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    for path in SOURCE.rglob("*.py"):
        for name in re.findall(r"\"(GLEBE_[A-Z_]+[A-Z])\"", path.read_text(encoding="utf-8")):
            assert name in pages, f"{path.name}: {name}"


def test_the_forecast_assumes_what_the_page_says() -> None:
    text = page("concepts.md")
    assert f"{SPREAD:g} times" in text
    assert f"{UNKNOWN.p50 / 3600:g} h and {UNKNOWN.p90 / 3600:g} h" in text


def test_every_fault_is_documented_with_its_chance() -> None:
    rates = FaultRates()
    chances = [getattr(rates, f.name) for f in fields(rates) if f.name != "max_delay"]
    shown = re.findall(r"\| ([\d.]+) %", page("simulation.md"))
    assert sorted(float(x) / 100 for x in shown) == pytest.approx(sorted(chances))
    assert f"up to {rates.max_delay:g} s" in page("simulation.md")


@pytest.mark.parametrize("floor", ["", "apiserver", "node"])
def test_every_room_is_on_the_plan_of_the_house(floor: str) -> None:
    rooms = sorted(path.parent.name for path in (SOURCE / floor).glob("*/__init__.py"))
    assert rooms
    text = page("architecture.md")
    for room in rooms:
        assert re.search(rf"`(glebe\.|src/glebe/)?{room}/?`", text), f"glebe.{floor}.{room}"


def test_a_word_of_the_glossary_means_one_thing() -> None:
    table = page("architecture.md").split("## Glossary")[1]
    words = [word for line in re.findall(r"^\| (\*.*?) \|", table, re.MULTILINE) for word in line.split(", ")]
    assert len(words) > 20
    assert sorted(set(words)) == sorted(words)
