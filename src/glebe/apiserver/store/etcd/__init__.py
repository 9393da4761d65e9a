"""The store of several server replicas: etcd v3, reached through its JSON gateway."""

from glebe.apiserver.store.etcd.gateway import EtcdOptions
from glebe.apiserver.store.etcd.store import EtcdStore

__all__ = ["EtcdOptions", "EtcdStore"]
