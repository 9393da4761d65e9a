from __future__ import annotations

import base64
import stat
import sys
from pathlib import Path

import pytest
import yaml

from glebe.kube import kubeconfig
from glebe.kube.kubeconfig import ExecPlugin, KubeconfigError, in_cluster_config, load_kubeconfig, write_kubeconfig


def document(**changes: object) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "clusters": [{"name": "c", "cluster": {"server": "https://host:6443/clusters/a"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        **changes,
    }


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config"
    write_kubeconfig(
        path,
        "https://127.0.0.1:6443",
        ca=b"CA",
        certificate=b"CERT",
        key=b"KEY",
        name="glebe",
        namespace="team",
        clusters={"tenant": "https://127.0.0.1:6443/clusters/tenant"},
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = load_kubeconfig(path)
    assert (config.server, config.ca, config.certificate, config.key) == (
        "https://127.0.0.1:6443",
        b"CA",
        b"CERT",
        b"KEY",
    )
    assert (config.namespace, config.context) == ("team", "glebe")
    assert load_kubeconfig(path, "tenant").server.endswith("/clusters/tenant")
    assert list(path.parent.iterdir()) == [path]


def test_files_and_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(b"CA")
    (tmp_path / "token").write_text("t")
    user = {"client-certificate-data": base64.b64encode(b"CERT").decode(), "tokenFile": "token"}
    path = write(
        tmp_path / "config",
        document(
            clusters=[{"name": "c", "cluster": {"server": "host:1", "certificate-authority": "ca.crt"}}],
            users=[{"name": "u", "user": user}],
        ),
    )
    config = load_kubeconfig(path)
    assert config.ca == b"CA"
    assert config.certificate == b"CERT"
    assert config.token_file == str(tmp_path / "token")
    assert config.server == "https://host:1"


def test_several_files_are_merged_and_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "first", {"current-context": "main", "users": [{"name": "u", "user": {"token": "first"}}]})
    second = write(tmp_path / "second", document(**{"current-context": "other"}))
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    config = load_kubeconfig()
    assert (config.token, config.context) == ("first", "main")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        ("[]", "not a mapping"),
        ({"current-context": ""}, "current-context is not set"),
        (document(clusters=[]), "no cluster 'c' \\(known: none\\)"),
        (document(contexts={}), "no context 'main'"),
        (document(contexts="x"), "contexts must be a list"),
        (document(users=[{"user": {}}]), "users\\[0\\] must have name"),
        (document(clusters=[{"name": "c", "cluster": {}}]), "has no server"),
        (
            document(clusters=[{"name": "c", "cluster": {"server": "x", "certificate-authority-data": "%"}}]),
            "certificate-authority-data is not base64",
        ),
        (
            document(clusters=[{"name": "c", "cluster": {"server": "x", "certificate-authority": "nowhere"}}]),
            "nowhere cannot be read: No such file",
        ),
        (document(users=[{"name": "u", "user": {"exec": {"args": []}}}]), "exec has no command"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(KubeconfigError, match=message):
        load_kubeconfig(write(tmp_path / "config", content))


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeconfigError, match="gone cannot be read"):
        load_kubeconfig(tmp_path / "gone")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    with pytest.raises(KubeconfigError, match="no kubeconfig found"):
        load_kubeconfig()


def test_in_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "_IN_CLUSTER", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(KubeconfigError, match="not in a cluster"):
        in_cluster_config()
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(b"CA")
    (tmp_path / "namespace").write_text("team\n")
    config = in_cluster_config()
    assert (config.server, config.ca, config.namespace) == ("https://[fd00::1]:443", b"CA", "team")
    assert config.token_file == str(tmp_path / "token")


@pytest.mark.realtime
async def test_exec_plugins() -> None:
    good = (
        "import json, os; info = json.loads(os.environ['KUBERNETES_EXEC_INFO']);"
        "print(json.dumps({'kind': info['kind'], 'status': {'token': os.environ['WHO']}}))"
    )
    plugin = ExecPlugin(sys.executable, ("-c", good), {"WHO": "me"})
    assert (await plugin.credentials())[0] == "me"
    for args, message in [
        (("-c", "import sys; sys.exit('log in first')"), "log in first"),
        (("-c", "print('hello')"), "did not print"),
    ]:
        with pytest.raises(KubeconfigError, match=message):
            await ExecPlugin(sys.executable, args).credentials()
    with pytest.raises(KubeconfigError, match="cannot be run"):
        await ExecPlugin("glebe-no-such-command").credentials()
