"""docs/reference/gpu-models.md and README.md: the GPU catalogue, the index of all kinds."""

from __future__ import annotations

from docs_page import NOTE, cell, code, table
from glebe.gpu import catalogue


def models_page() -> dict[str, str]:
    rows = (
        (
            code(board.model),
            code(board.product),
            str(board.memory_mib),
            board.family,
            f"{board.compute[0]}.{board.compute[1]}",
            str(board.mig_slices or "-"),
        )
        for board in catalogue.BOARDS.values()
    )
    head = ("model", "`nvidia.com/gpu.product`", "memory, MiB", "family", "compute", "MIG slices")
    text = (
        "The models that a [fleet file](../fleet-file.md) may name. A prefix that fits only one is enough (`h200`). "
        "A simulated node carries the labels that GPU feature discovery writes for such a board.\n\n"
        "On a real cluster any GPU will do: flavors are told by node labels, not by this table.\n"
    )
    return {"docs/reference/gpu-models.md": "\n".join([NOTE + "# GPU models\n", text, table(head, rows)])}


def index_page() -> dict[str, str]:
    from docs_kinds import kinds, path_of, schema_of

    rows = []
    for kind in kinds():
        file = path_of(kind).removeprefix("docs/reference/")
        text = cell(schema_of(kind).get("description", ""))
        rows.append((f"[{kind.resource.kind}]({file})", code(kind.resource.api_version), text))
    text = (
        "- [Command line](../cli.md)\n"
        "- [Labels, annotations and other names](labels.md)\n"
        "- [Reasons](reasons.md): why a job waits; conditions, events, warnings\n"
        "- [GPU models](gpu-models.md)\n"
    )
    parts = [NOTE + "# Reference\n", text, "## Kinds\n", table(("kind", "API version", "what it is"), rows)]
    return {"docs/reference/README.md": "\n".join(parts)}
