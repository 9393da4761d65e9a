"""The words that users write and read: labels, annotations, reasons. Tables, and the pages made of them.

The tests check both ways: every name in the code stands here, and nothing stands here that the code does not know.
"""

from __future__ import annotations

from docs_words import jobkinds, life
from docs_words.controllers import APPS, EVENTS, JOB, NAMESPACES
from docs_words.labels import LABEL_TABLES, labels_page
from docs_words.nodes import DEVICES, NODE_REASONS, PODS, VOLUMES
from docs_words.queue import AT_SUBMISSION, DECISIONS, QUEUES, STATES, WORKLOAD
from docs_words.reasons import reasons_page
from docs_words.reference import index_page, models_page

#: Tables whose rows end with a reason and its meaning.
REASON_TABLES = (
    WORKLOAD,
    jobkinds.CONDITIONS,
    life.CONDITIONS,
    life.CHECKS,
    life.EVENTS,
    QUEUES,
    EVENTS,
    jobkinds.EVENTS,
    JOB,
    APPS,
    NAMESPACES,
    PODS,
    NODE_REASONS,
    DEVICES,
    VOLUMES,
)

__all__ = [
    "AT_SUBMISSION",
    "DECISIONS",
    "LABEL_TABLES",
    "REASON_TABLES",
    "STATES",
    "index_page",
    "labels_page",
    "models_page",
    "reasons_page",
]
