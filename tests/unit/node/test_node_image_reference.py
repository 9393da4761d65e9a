"""Image references, documents and users, as container runtimes read them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.node.containers.images import documents, reference, secrets, users
from glebe.node.containers.images.errors import BrokenImage, ImageError
from glebe.node.containers.images.reference import InvalidReference, Reference
from glebe.node.containers.images.registry import is_local
from glebe.node.contracts import CreateError, Identity

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/a/b:c", "docker.io/a/b:c"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("Registry/app", "Registry/app:latest"),
        ("[::1]:5000/a/b", "[::1]:5000/a/b:latest"),
        (f"busybox@{D}", f"docker.io/library/busybox@{D}"),
        (f"a.b/c/d:tag@{D}", f"a.b/c/d:tag@{D}"),
        ("a/b__c/d-e--f/g.h", "docker.io/a/b__c/d-e--f/g.h:latest"),
    ],
)
def test_references(text: str, whole: str) -> None:
    assert str(reference.parse(text)) == whole
    assert reference.parse(whole) == reference.parse(text)


NONE = ["", "-a", "a:", "a:-b", "a@", f"a@{D[:-1]}", f"a@{D.upper()}", "a//b", "/a", "a/", "a b", "a:b:c", "a___b"]
LONG = ["a" * 64, "x/" + "y" * 300, "a:" + "t" * 129]


@pytest.mark.parametrize("text", [*NONE, *LONG, "a..b", "https://a.b/c", "a.b:x/c", "a\n", "ä"])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReference):
        reference.parse(text)


def test_errors_are_the_kubelets() -> None:
    with pytest.raises(ImageError, match=r"repository name \(library/FOO\) must be lowercase") as error:
        reference.read("FOO")
    assert error.value.reason == "InvalidImageName"


_part = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,5})?", fullmatch=True)


@given(
    st.from_regex(r"[a-z0-9]{1,8}\.[a-z]{2,4}(:[0-9]{1,5})?", fullmatch=True),
    st.lists(_part, min_size=1, max_size=4),
    st.from_regex(r"[A-Za-z0-9_][\w.-]{0,20}", fullmatch=True).filter(str.isascii) | st.just(""),
    st.sampled_from(["", D]),
)
def test_what_is_written_is_read_again(domain: str, parts: list[str], tag: str, digest: str) -> None:
    made = Reference(domain, "/".join(parts), tag or ("" if digest else "latest"), digest)
    assert reference.parse(str(made)) == made


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except InvalidReference:
        return
    assert reference.parse(str(parsed)) == parsed
    assert parsed.selector


def test_the_platform_is_chosen() -> None:
    def item(architecture: str, letter: str, **more: str) -> dict[str, Any]:
        return {
            "digest": "sha256:" + letter * 64,
            "size": 1,
            "platform": {"os": "linux", "architecture": architecture, **more},
        }

    index = {"manifests": [item("amd64", "a"), item("arm64", "b", variant="v7"), item("arm64", "c", variant="v8")]}
    assert documents.choose(index, "x86_64").digest == "sha256:" + "a" * 64
    assert documents.choose(index, "aarch64").digest == "sha256:" + "c" * 64
    with pytest.raises(BrokenImage, match="no match for platform in manifest"):
        documents.choose(index, "riscv64")


_WHOLE = {"digest": D, "size": 1}
_DOCUMENTS: list[dict[str, Any]] = [
    {},
    {"schemaVersion": 1},
    {"schemaVersion": 2, "layers": []},
    {"schemaVersion": 2, "layers": [3], "config": _WHOLE},
    {"schemaVersion": 2, "layers": [{"mediaType": "x", **_WHOLE}], "config": _WHOLE},
    {"schemaVersion": 2, "layers": [], "config": {"digest": "md5:" + "a" * 32, "size": 1}},
]


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_manifests_that_are_none(document: dict[str, Any]) -> None:
    with pytest.raises(BrokenImage):
        documents.manifest(document)


def test_configuration() -> None:
    inner = {"Entrypoint": ["/e"], "Cmd": ["a", "b"], "Env": ["A=b=c", "D"], "WorkingDir": "/w", "User": "u:g"}
    made = documents.config({"config": {**inner, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}})
    assert (made.entrypoint, made.command, made.env) == (("/e",), ("a", "b"), (("A", "b=c"), ("D", "")))
    assert (made.working_dir, made.user, made.stop_signal, made.exposed_ports) == ("/w", "u:g", "SIGQUIT", ("80/tcp",))


def test_users_are_the_images(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/:\nweb:x:101:102::/:\n")
    (tmp_path / "etc" / "group").write_text("staff:x:50:\nmore:x:7:web,root\nother:x:8:web\n")

    def who(named: str, **asked: Any) -> tuple[int | None, int | None, tuple[int, ...]]:
        made = users.identity(tmp_path, named, Identity(**asked))
        return made.user, made.group, made.groups

    assert who("") == (0, 0, (7,))
    assert who("web") == (101, 102, (7, 8))
    assert who("101") == (101, 102, (7, 8))
    assert who("web:staff") == (101, 50, (7, 8))
    assert who("5:6") == (5, 6, ())
    assert who("web", user=1000) == (1000, 0, ())
    assert who("", user=101, groups=(9,)) == (101, 102, (7, 8, 9))
    assert who("web", group=3) == (101, 3, (7, 8))
    with pytest.raises(CreateError, match="unable to find user nobody"):
        who("nobody")
    (tmp_path / "etc" / "passwd").unlink()
    (tmp_path / "etc" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(CreateError):
        who("daemon")


def test_pull_secrets_fit_by_host_and_path() -> None:
    def secret(table: dict[str, Any], old: bool = False) -> dict[str, Any]:
        text = json.dumps(table if old else {"auths": table})
        return {"data": {".dockercfg" if old else ".dockerconfigjson": base64.b64encode(text.encode()).decode()}}

    one = secret({"https://r.io/v2/": {"username": "a", "password": "1"}, "r.io/team": {"auth": "YjoyOjM="}})
    two = secret({"*.example.com": {"username": "c", "password": "4"}, "docker.io": {"identitytoken": "t"}}, old=True)
    broken = {"data": {".dockerconfigjson": "!!"}}

    def found(name: str) -> list[tuple[str, str]]:
        return [(c.user, c.password) for c in secrets.credentials([broken, one, two], reference.parse(name))]

    assert found("r.io/team/app") == [("b", "2:3"), ("a", "1")]
    assert found("r.io/teams/app") == [("a", "1")]
    assert found("x.example.com/a") == [("c", "4")]
    assert found("x.y.example.com/a") == []
    assert found("busybox") == [("", "t")]
    assert found("r.io:5000/a") == []


def test_only_registries_of_this_machine_go_without_tls() -> None:
    assert all(map(is_local, ("localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000", "r.localhost")))
    assert not any(map(is_local, ("docker.io", "10.0.0.1:5000", "localhost.example.com", "127.0.0.1.nip.io")))
