"""What the pages say can be done can be done: links lead somewhere, commands parse, manifests are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from glebe.apiserver.audit import policy as audit_policy
from glebe.apiserver.auth import authconfig
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.store.sealing.config import parse_encryption_config
from glebe.apiserver.types.registry import TypeRegistry
from glebe.cli.main import app
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import Resource
from glebe.node.containers.containers import ANY_IMAGE, NATIVE
from glebe.node.fleet import parse_fleet
from glebe.node.process import classes
from glebe.node.simulated.scenario import parse_scenario
from glebe.platform import bootstrap
from glebe.queueing import configuration

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> Iterator[tuple[int, str]]:
    """(line, content) of the fenced blocks in these languages; indented ones are part of a list."""
    pattern = r"^( *)```(\w*)\n(.*?)^\1```"
    for found in re.finditer(pattern, text_of(name), re.DOTALL | re.MULTILINE):
        if found[2] in languages:
            content = re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
            yield text_of(name)[: found.start()].count("\n") + 1, content


# --- links


def anchors(name: str) -> set[str]:
    """As they are made from headings: lower case, spaces to dashes, the rest of the punctuation gone."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    here = (ROOT / name).parent
    body = re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", body):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = (here / file).resolve() if file else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        assert path.is_relative_to(ROOT), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(str(path.relative_to(ROOT))), f"{name} links to {target}"


def test_every_page_is_linked_from_the_readme_or_the_reference() -> None:
    linked = set()
    for index in ("README.md", "docs/reference/README.md"):
        here = (ROOT / index).parent
        linked |= {(here / t.partition("#")[0]).resolve() for t in re.findall(r"\]\(([^)\s]+)\)", text_of(index))}
    assert {str(p.relative_to(ROOT)) for p in PAGES if p not in linked} <= {"README.md"}


# --- commands


def commands(name: str) -> Iterator[tuple[str, str]]:
    """``glebe`` command lines: after prompts, in indented lines, and in code spans that say what to type."""
    text = text_of(name)
    joined = re.sub(r" *\\\n\s*", " ", text)
    found = re.findall(r"^ *\$ (?:\S+/)?(glebe(?: .*)?)$", joined, re.MULTILINE)
    found += re.findall(r"(?<!`)`(?:\.venv/bin/)?(glebe [a-z][^`\n]*)`(?!`)", joined)
    for command in found:
        yield command, re.sub(r"  +#.*$|\s+&$|\s+\|.*$|\s+>.*$", "", command).strip()


@pytest.mark.parametrize("name", NAMES)
def test_commands_parse(name: str) -> None:
    group: Any = typer.main.get_command(app)
    for shown, command in commands(name):
        words = shlex.split(command)[1:]
        if not words or words[0] == "--help":
            continue
        assert words[0] in group.commands, f"{name}: {shown}"
        if "OPTIONS" in command or (len(words) == 1 and words[0] in ("run", "why", "logs", "cancel")):
            continue  # a synopsis, or a verb by its name
        try:
            group.commands[words[0]].make_context(words[0], words[1:])
        except Exception as error:
            if type(error).__name__ == "MissingParameter" and f"`{shown}`" in text_of(name):
                continue  # an option, shown with its verb
            pytest.fail(f"{name}: {shown}: {error!r}")


def test_commands_are_found() -> None:
    assert sum(1 for name in NAMES for _ in commands(name)) > 40


# --- manifests


def manifests() -> list[tuple[str, dict[str, Any]]]:
    out = []
    for name in NAMES:
        for line, content in blocks(name, "yaml"):
            for document in yaml.safe_load_all(content):
                assert isinstance(document, dict), f"{name}:{line} is not an object"
                assert "kind" in document, f"{name}:{line} is a fragment: show whole objects"
                out.append((f"{name}:{line} {document['kind']}", document))
    return out


ALL = manifests()


def test_manifests_are_found() -> None:
    assert len(ALL) >= 8


@pytest.mark.parametrize("document", [d for _, d in ALL if d["kind"] == "Fleet"], ids=str)
def test_fleet_files_in_the_pages_are_valid(document: dict[str, Any]) -> None:
    fleet = parse_fleet(yaml.safe_dump(document))
    assert fleet.nodes or fleet.local


#: Files for flags, by kind; what is not here is an object for the API.
FILES = {
    "Scenario": lambda document: parse_scenario(yaml.safe_dump(document)),
    "Policy": audit_policy.read,
    "AuthenticationConfiguration": authconfig.read,
    "EncryptionConfiguration": parse_encryption_config,
    "Configuration": configuration.parsed,
}


@pytest.mark.parametrize("document", [d for _, d in ALL if d["kind"] in FILES], ids=lambda d: str(d["kind"]))
def test_configurations_in_the_pages_are_valid(document: dict[str, Any]) -> None:
    FILES[document["kind"]](document)


async def test_manifests_in_the_pages_are_valid() -> None:
    registry = TypeRegistry()
    server = ApiServer(MemoryStore(), Env.system(), registry)
    await server.start()
    client = Client(InProcessTransport(server.handle))
    await bootstrap.install_crds(client)
    await classes.offer(client, (NATIVE, ANY_IMAGE))  # what pages tell of is a platform with its own node
    known = {
        (f"{i.group}/{i.version}".lstrip("/"), i.kind): Resource(i.group, i.version, i.plural, i.kind, i.namespaced)
        for i in registry.resources("root")
    }
    objects = [(where, document) for where, document in ALL if document["kind"] not in ("Fleet", *FILES)]
    for namespace in sorted(
        {d["metadata"].get("namespace", "default") for _, d in objects} - {"default", "kube-system"}
    ):
        await client.create(r.NAMESPACES, {"metadata": {"name": namespace}})
    for where, document in objects:
        resource = known[document["apiVersion"], document["kind"]]
        if resource.namespaced:
            document["metadata"].setdefault("namespace", "default")
        try:
            await client.create(resource, document, dry_run=True, field_validation="Strict")
        except ApiError as error:
            if error.reason != "AlreadyExists":  # a namespace that was needed above
                pytest.fail(f"{where}: {error}")
    await server.close()
