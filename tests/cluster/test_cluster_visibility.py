"""The visibility API behind a real kube-apiserver's aggregator, answered by `glebe controller`."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from kube_peer import Peer, _kubeconfig, assets
from kueue_story import apply, job, submit, until
from test_cluster_controller import glebe_controller, said
from test_cluster_queue import controllers

from glebe.apiserver.auth.pki import Pki
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.http import HttpTransport
from glebe.kube.kubeconfig import ClientConfig

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]
BASE = "/apis/visibility.kueue.x-k8s.io/v1beta2"


class AggregatingPeer(Peer):
    """With what an API server needs to pass requests on."""

    def _spawn(self, program: str, *args: str) -> subprocess.Popen[bytes]:
        if program == "kube-apiserver":
            folder = self._data / "front"
            pki = Pki(folder)
            pki.ensure(["front"], time.time())
            pair = pki.issue_client("aggregator", (), time.time(), scope=None)
            (folder / "proxy.crt").write_bytes(pair.certificate)
            (folder / "proxy.key").write_bytes(pair.key)
            args = (
                *args,
                f"--requestheader-client-ca-file={pki.ca_file}",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                "--requestheader-allowed-names=aggregator",
                f"--proxy-client-cert-file={folder / 'proxy.crt'}",
                f"--proxy-client-key-file={folder / 'proxy.key'}",
            )
        return super()._spawn(program, *args)


async def pending(client: Client, what: str) -> Any:
    try:
        return json.loads((await client.raw("GET", f"{BASE}/{what}/pendingworkloads")).body)["items"]
    except ApiError as error:
        if error.code in (404, 503):
            return None
        raise


async def test_who_waits_is_told_through_the_aggregator(tmp_path: Path) -> None:
    peer = AggregatingPeer(assets(), tmp_path)
    try:
        client = peer.client()
        await peer.ready(client)
        with controllers(peer, assets(), tmp_path):
            config = tmp_path / "own"
            config.write_text(json.dumps(_kubeconfig(peer.config.server)))
            with glebe_controller(config, tmp_path, "--webhook-listen", "127.0.0.1:0"):
                await until(lambda: said(tmp_path / "glebe.log", "leads"))
                await apply(client)
                for name in ("one", "two", "three"):
                    await submit(client, job(name, "a", 2))
                await until(lambda: _three(client))
                own = await pending(client, "namespaces/default/localqueues/a")
                assert [i["positionInLocalQueue"] for i in own] == [0, 1, 2][: len(own)]
                nobody = as_nobody(peer)
                with pytest.raises(ApiError) as refused:
                    await nobody.raw("GET", f"{BASE}/clusterqueues/a/pendingworkloads")
                assert refused.value.code in (401, 403)
                await nobody.close()
        await client.close()
    finally:
        peer.stop()


async def _three(client: Client) -> bool:
    found = await pending(client, "clusterqueues/a")
    return found is not None and len(found) >= 2 and found[0]["positionInClusterQueue"] == 0


def as_nobody(peer: Peer) -> Client:
    return Client(HttpTransport.from_config(ClientConfig(server=peer.config.server, token="", insecure=True)))
