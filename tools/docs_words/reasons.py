"""docs/reference/reasons.md, made of the tables of reasons."""

from __future__ import annotations

from docs_page import NOTE, cell, code, table
from docs_words import jobkinds, life
from docs_words.controllers import APPS, EVENTS, JOB, NAMESPACES
from docs_words.nodes import DEVICES, NODE_REASONS, PODS, VOLUMES
from docs_words.queue import AT_SUBMISSION, DECISIONS, QUEUES, STATES, WORKLOAD
from docs_words.rows import Row


def reasons_page() -> dict[str, str]:
    verdicts = ((code(reason), *map(cell, texts)) for reason, texts in DECISIONS.items())
    parts = [
        NOTE + "# Reasons\n",
        "Every decision carries a machine-readable reason, a sentence, and a remedy where there is one.\n",
        "## Why a job waits, or never starts\n\nThe same words stand in the condition `QuotaReserved`, in "
        "`status.forecast`, in events and in the command line.\n\n"
        "*Waits*: it starts when something that is in use becomes free. *Never*: as it is written, on this fleet and "
        "with these quotas, it cannot start.\n",
        table(("reason", "", "meaning", "what helps"), verdicts),
        "## When a job is submitted\n\nWarnings reach the user through `kubectl` and `glebe run`.\n",
        table(("answer", "says", "when"), ((a, code(t), cell(m)) for a, t, m in AT_SUBMISSION)),
        "A cluster that is not embedded checks less at submission; see [On a real cluster](../production.md).\n",
        "## States in `glebe jobs`\n",
        table(("state", "meaning"), ((code(state), cell(text)) for state, text in STATES.items())),
        "## Conditions of a Workload\n",
        _four(("condition", "status", "reason", "meaning"), (*WORKLOAD, *life.CONDITIONS, *jobkinds.CONDITIONS)),
        "## Conditions of queues\n\nThe condition is `Active`, where nothing else is said.\n",
        _three(("of", "reason", "meaning"), (*QUEUES, *life.CHECKS)),
        "## Events\n",
        _four(("about", "type", "reason", "meaning"), (*EVENTS, *life.EVENTS, *jobkinds.EVENTS)),
        "## Conditions of a Job\n",
        _three(("condition", "reason", "meaning"), JOB),
        "## Deployments, sets, budgets\n\nEvents about a single pod are those of a Job.\n",
        _four(("of", "condition", "reason", "meaning"), APPS),
        "## Claims and volumes\n\nAll are events. See [Volumes](../volumes.md).\n",
        _three(("of", "reason", "meaning"), VOLUMES),
        "## Pods and containers\n\nPods of Glebe's own nodes; on a real cluster the kubelet writes them.\n",
        _three(("where", "reason", "meaning"), PODS),
        "## Nodes\n",
        _three(("condition", "reason", "meaning"), NODE_REASONS),
        "## Devices\n\nSee [GPUs](../gpus.md).\n",
        _three(("of", "reason", "meaning"), DEVICES),
        "## Namespaces that are being deleted\n",
        _three(("condition", "reason", "meaning"), NAMESPACES),
        "## Elsewhere\n\nCustomResourceDefinitions and APIServices: [Custom kinds](../custom-kinds.md).\n",
    ]
    return {"docs/reference/reasons.md": "\n".join(parts)}


def _word(text: str) -> str:
    """Words of the API as code; descriptions as they are."""
    return code(text) if " " not in text else text


def _four(head: Row, rows: tuple[Row, ...]) -> str:
    return table(head, ((one, two, _word(reason), cell(text)) for one, two, reason, text in rows))


def _three(head: Row, rows: tuple[Row, ...]) -> str:
    return table(head, ((one, _word(reason), cell(text)) for one, reason, text in rows))
