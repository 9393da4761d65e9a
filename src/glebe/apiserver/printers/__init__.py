"""What each built-in kind shows in a table: its columns, and the function that fills a row.

A column is written ``Name:type`` (type string when left out); ``+`` marks one that only ``-o wide`` shows. Status words
follow kubectl's, because people and scripts read them.
"""

from __future__ import annotations

from glebe.apiserver.printers import access, cluster, devices, network, storage, workloads
from glebe.apiserver.printers.cells import Printers, age, since

#: group resource -> (columns, row)
PRINTERS: Printers = {
    **workloads.PRINTERS,
    **cluster.PRINTERS,
    **network.PRINTERS,
    **storage.PRINTERS,
    **access.PRINTERS,
    **devices.PRINTERS,
}

__all__ = ["PRINTERS", "age", "since"]
