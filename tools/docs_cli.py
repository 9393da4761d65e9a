"""``docs/cli.md``: every verb with its arguments and options, from the functions behind them; and the exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

from docs_page import NOTE, cell, code, table

INTRODUCTION = """\
`glebe` is one command with a verb. It reads and writes the Kubernetes API and keeps no state of its own, so whatever
it shows can also be read with `kubectl`.

- **Which server.** `--kubeconfig`, else `$KUBECONFIG`, else the kubeconfig of the platform on this machine
  (`$GLEBE_DATA_DIR/kubeconfig`, by default `~/.glebe/kubeconfig`), else `~/.kube/config`.
- **Output.** `-o table` is for people, `-o wide` adds columns. `-o json` and `-o yaml` print the same rows under names
  that stay; times are RFC 3339, durations are seconds. `-o name` prints names only.
- **Errors** go to stderr as `error: WHAT IS WRONG`, with a line `try: WHAT TO DO` where something can be done. Nothing
  asks questions.
- **Completion**: `glebe --install-completion` sets it up for the current shell, `glebe --show-completion` prints it.
  Names of jobs and queues are completed, too.
"""

ENVIRONMENT = (
    ("KUBECONFIG", "kubeconfig file or files, as for kubectl"),
    ("GLEBE_DATA_DIR", "the data directory where none is given with `--data-dir`; default `~/.glebe`"),
)

#: Options that every verb which talks to a server has. They are described once.
COMMON = ("output", "namespace", "kubeconfig", "context", "cluster")

#: What to try, by verb.
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "up": (
        ("glebe up", "the default fleet, data in `~/.glebe`"),
        ("glebe up --data-dir /tmp/try --fleet examples/fleet.yaml", "another fleet, kept elsewhere"),
        ("glebe up --scenario s.yaml", "things go wrong, by a [scenario](simulated-nodes.md#scenarios)"),
        ("glebe up --listen 127.0.0.1:6443", "a fixed port, so that kubeconfigs stay valid"),
        ("glebe up --audit-log-path audit.log", "who asked what; see [Identity, rights, audit](identity.md)"),
    ),
    "agent": (
        (
            "glebe agent --simulated --fleet fleet.yaml --kubeconfig kind.kubeconfig",
            "[simulated nodes](simulated-nodes.md) on any Kubernetes",
        ),
    ),
    "demo": (("glebe demo", "exits with 1 when anything that it tells of did not happen"),),
    "run": (
        ("glebe run --name hello --queue local -- echo hello", "one process on this machine, followed to its end"),
        (
            "glebe run --name train --nodes 8 --gpus-per-node 8 --expected 20m..35m -- torchrun train.py",
            "a gang of 8 pods with 8 GPUs each",
        ),
        (
            "glebe run --name train --nodes 4 --gpus-per-node 8 --topology required rack --dry-run -- torchrun t.py",
            "would it start, when, and where? Nothing is submitted",
        ),
    ),
    "queue": (("glebe queue", "everybody who waits"), ("glebe queue team-a -o wide", "one queue, with remedies")),
    "jobs": (("glebe jobs -A", "the jobs of all namespaces"), ("glebe jobs -o json", "for scripts")),
    "why": (("glebe why train", "exits with 5 when the job can never start"),),
    "logs": (("glebe logs -f train --rank 3", "the fourth pod, until it ends"),),
    "cancel": (("glebe cancel train", "a waiting or a running job"),),
    "approve": (
        ("glebe approve -A", "what waits for a person"),
        ('glebe approve train -m "as agreed"', "it may start when it has its quota"),
    ),
    "deny": (('glebe deny train -m "the budget is spent"', "it is switched off, and says why"),),
    "plan": (
        ("glebe plan", "who could start, and who would have to move where"),
        ("glebe plan --lost 0.1 -o json", "only what costs next to nothing, for scripts"),
    ),
    "cluster": (
        ("glebe cluster create team-a --objects 20000", "a logical cluster that may hold 20,000 objects"),
        ("glebe cluster kubeconfig team-a --to team-a.kubeconfig", "a kubeconfig that is good in this cluster alone"),
        ("glebe cluster list", "all of them, with what they hold"),
    ),
    "nodes": (("glebe nodes", "the fleet, and what of it is in use"),),
    "usage": (("glebe usage", "all days"), ("glebe usage --day 2026-01-31 -o json", "one day, for a script")),
    "apiserver": (
        ("glebe apiserver --data-dir a --etcd-servers http://127.0.0.1:2379", "see [Storage](storage.md)"),
        ("glebe apiserver --data-dir one", "alone, on SQLite"),
    ),
    "snapshot": (
        ("glebe snapshot save all.jsonl", "everything; see [Storage](storage.md)"),
        ("glebe snapshot save team-a.jsonl --cluster team-a", "one logical cluster"),
        ("glebe snapshot restore all.jsonl --data-dir new", "into a new data directory"),
    ),
    "controller": (
        ("glebe controller --kubeconfig cluster.yaml", "see [On a real cluster](production.md)"),
        ("glebe controller --kubeconfig cluster.yaml --install-only", "kinds and admission rules only"),
    ),
    "simulate": (
        ("glebe simulate --seeds 50", "see [Simulation](simulation.md)"),
        ("glebe simulate --seed 17", "one seed again, with its log"),
    ),
    "version": (("glebe version", ""),),
}


def pages() -> dict[str, str]:
    from glebe.cli.app import app
    from glebe.cli.exits import MEANING
    from glebe.cli.main import VERBS

    callbacks = {command.name or command.callback.__name__: command.callback for command in app.registered_commands}
    summary = table(
        ("verb", "what it does"),
        ((f"[`{name}`](#glebe-{name})", cell(_first_line(callbacks[name]))) for name in VERBS),
    )
    codes = table(("code", "meaning"), ((str(int(number)), cell(text)) for number, text in MEANING.items()))
    common = table(("option", "meaning", "default"), _common(callbacks))
    variables = table(("variable", "meaning"), ((code(name), text) for name, text in ENVIRONMENT))
    parts = [
        NOTE + "# Command line\n",
        INTRODUCTION,
        summary,
        f"## Exit codes\n\nScripts may rely on these numbers.\n\n{codes}",
        f"## Options of the verbs that talk to a server\n\n{common}",
        f"## Environment\n\n{variables}",
        *(_verb(name, callbacks[name]) for name in VERBS),
    ]
    return {"docs/cli.md": "\n".join(parts)}


def _first_line(callback: Callable[..., Any]) -> str:
    return (inspect.getdoc(callback) or "").splitlines()[0]


def _parameters(callback: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any, list[str]]]:
    """Parameter, typer's description of it, and its flags: none for an argument."""
    out = []
    for parameter in inspect.signature(callback, eval_str=True).parameters.values():
        infos = [one for one in getattr(parameter.annotation, "__metadata__", ()) if hasattr(one, "param_decls")]
        if infos:
            # inside Annotated, typer's first positional argument is a flag, whatever its name says
            found = (infos[0].default, *(infos[0].param_decls or ()))
            out.append((parameter, infos[0], [str(flag) for flag in found if str(flag).startswith("-")]))
    return out


def _is_common(callback: Callable[..., Any], name: str) -> bool:
    return name in COMMON and "cluster" in inspect.signature(callback).parameters


def _common(callbacks: dict[str, Callable[..., Any]]) -> list[tuple[str, str, str]]:
    rows = {}
    for callback in callbacks.values():
        for parameter, info, flags in _parameters(callback):
            if _is_common(callback, parameter.name):
                rows[parameter.name] = _row(parameter, info, flags)
    return [rows[name] for name in COMMON]


def _verb(name: str, callback: Callable[..., Any]) -> str:
    usage, rows, common = "", [], False
    for parameter, info, flags in _parameters(callback):
        if _is_common(callback, parameter.name):
            common = True
            continue
        if not flags:
            usage += f" {info.metavar or parameter.name.upper()}"
        rows.append(_row(parameter, info, flags))
    parts = [f"## glebe {name}\n", f"    glebe {name} [OPTIONS]{usage}\n", f"{inspect.getdoc(callback)}\n"]
    if rows:
        parts.append(table(("argument or option", "meaning", "default"), rows))
    if common:
        has_output = "output" in inspect.signature(callback).parameters
        which = "" if has_output else ", except `--output`"
        parts.append(f"Also the [options of verbs that talk to a server](#{_ANCHOR}){which}.\n")
    if name in EXAMPLES:
        lines = [f"- `{command}`{': ' + text if text else ''}" for command, text in EXAMPLES[name]]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


_ANCHOR = "options-of-the-verbs-that-talk-to-a-server"


def _row(parameter: inspect.Parameter, info: Any, flags: list[str]) -> tuple[str, str, str]:
    if flags:
        shown = ", ".join(f"`{flag}`" for flag in sorted(flags, key=len)) + _value_of(info, parameter)
    else:
        shown = code(info.metavar or parameter.name.upper())
    return shown, cell(info.help or ""), _default(parameter, bool(flags))


def _value_of(info: Any, parameter: inspect.Parameter) -> str:
    kind = parameter.annotation.__origin__
    if info.metavar:
        return f" `{info.metavar}`"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " " + code("|".join(str(member.value) for member in kind))
    words = {bool: "", int: " `INTEGER`", float: " `NUMBER`"}
    return words.get(kind, " `INTEGER`" if kind == int | None else " `TEXT`")


def _default(parameter: inspect.Parameter, option: bool) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required" if option or parameter.annotation.__origin__ is not list else ""
    if parameter.default is None or parameter.default == "" or parameter.default is False:
        return ""
    return f"`{getattr(parameter.default, 'value', parameter.default)}`"
