"""docs/job-kinds.md says what the table of job kinds says."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from glebe.queueing.jobkinds import parse
from glebe.queueing.jobkinds.declared import declared
from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobkinds.paths import path_text
from glebe.queueing.jobkinds.registry import shipped

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "job-kinds.md").read_text("utf-8")
HELD = {"each": "each pod", "set": "all pods together", "groups": "each group together"}
TOLD = {"trainjob": "as its runtime says", "appwrapper": "as its components say", "spark": "`driver`, `executor`"}


def sets(kind: JobKind) -> str:
    if kind.held_by_pods:
        return "each pod, or each group" if kind.resource.kind == "Pod" else HELD[kind.held_by_pods]
    names = []
    for rule in kind.pod_sets:
        if not rule.each:
            names.append(f"`{rule.name}`")
        elif rule.keys:
            names += [f"`{key.lower()}`" for key in rule.keys]
        else:
            names.append(f"each of `{path_text(rule.each)}`")
    return TOLD.get(kind.shape) or ", ".join(names)


def row(kind: JobKind) -> str:
    switch = f"`{path_text(kind.suspend)}`" if kind.suspend else "a gate"
    ends = "yes" if kind.finished or kind.resource.kind == "Pod" else "no"
    return f"| `{kind.resource.kind}` `{kind.resource.api_version}` | {switch} | {sets(kind)} | {ends} |"


def test_the_page_has_every_kind_and_no_other() -> None:
    table = PAGE.split("| kind | switch |")[1].split("\n\n")[0].splitlines()[2:]
    assert table == [row(kind) for kind in shipped()]


def test_the_example_is_a_kind() -> None:
    (block,) = re.findall(r"```yaml\n(apiVersion: v1\nkind: ConfigMap.*?)```", PAGE, re.DOTALL)
    kinds, faults = declared(yaml.safe_load(block))
    assert faults == []
    assert [kind.resource.kind for kind in kinds] == ["Simulation"]


def test_every_field_of_a_declaration_is_named() -> None:
    source = Path(parse.__file__).read_text("utf-8")
    fields = set(re.findall(r'r\.(?:text|path|paths|flag|items|raw|children)\("(\w+)"', source))
    fields |= set(re.findall(r'_(?:count|tests)\(r, "(\w+)"', source))
    internal = {*parse.INTERNAL, "namespaced", "elastic"}
    missing = [name for name in sorted(fields - internal) if not re.search(rf"`{name}[`:]|`\w+\[\]\.{name}`", PAGE)]
    assert missing == []
