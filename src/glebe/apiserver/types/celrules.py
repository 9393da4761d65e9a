"""CEL rules of custom resources (``x-kubernetes-validations``), evaluated by ``common-expression-language``.

Standard CEL is understood; the functions that Kubernetes adds to it (quantities, URLs, finds, optional types...) are
not yet: a rule that needs one is logged once and not enforced.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from glebe.apiserver.types.names import show
from glebe.apiserver.types.schema import Schema
from glebe.kube.errors import Cause

log = logging.getLogger("glebe.apiserver")

Program = Callable[[dict[str, Any]], Any]
_MODULE = "cel.cel"
_OLD_SELF = re.compile(r"\boldSelf\b")
_UNDEFINED = "Undefined variable or function"
_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")


@cache
def _engine() -> Any:
    """The package's compiled module alone: its ``__init__`` imports a terminal UI (0.6 s and 30 MB).

    :raises ImportError: the package is not installed.
    """
    if (loaded := sys.modules.get(_MODULE)) is not None:
        return loaded
    spec = importlib.util.find_spec("cel")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder) / f"cel{suffix}"
            if path.is_file():
                loader = importlib.machinery.ExtensionFileLoader(_MODULE, str(path))
                made = importlib.util.spec_from_loader(_MODULE, loader, origin=str(path))
                assert made is not None
                module = importlib.util.module_from_spec(made)
                loader.exec_module(module)
                sys.modules[_MODULE] = module  # it can be initialised only once in a process
                return module
    raise ImportError("the package common-expression-language is not installed")


@lru_cache(maxsize=1024)
def _program(rule: str) -> Program | None:
    """The compiled rule; None when it uses what is not understood."""
    try:
        compiled: Program = _engine().compile(rule).execute
    except (ImportError, ValueError) as error:
        log.warning("CEL rule %r is not enforced: %s", rule, error)
        return None
    except BaseException as error:
        if not _is_panic(error):
            raise
        log.warning("CEL rule %r is not enforced: %s", rule, error)
        return None
    return compiled


def _is_panic(error: BaseException) -> bool:
    """A panic of the Rust library arrives as an exception outside ``Exception``."""
    return type(error).__name__ == "PanicException"


@lru_cache(maxsize=1024)
def _not_understood(rule: str, why: str) -> None:
    log.warning("CEL rule %r is not enforced: %s", rule, why)


def look_for_rules(schema: Schema) -> bool:
    """Does a rule stand at or below this node? Ask :attr:`Schema.ruled`, which remembers the answer."""
    if schema.raw.get("x-kubernetes-validations"):
        return True
    if not schema.custom:
        return False
    return any(child.ruled for child in (*schema.fields.values(), schema.items, schema.additional) if child is not None)


def rule_faults(schema: Schema, value: Any, old: Any, path: str = "") -> Iterator[Cause]:
    """The rules that ``value`` breaks; ``old`` is what it replaces (None: nothing), for rules that name ``oldSelf``."""
    if value is None or not schema.ruled:
        return
    if value == old and type(value) is type(old):
        return  # what was let in once and has not changed is not held against a later write
    for rule in schema.raw.get("x-kubernetes-validations") or ():
        fault = _broken(rule, value, old, path)
        if fault is not None:
            yield fault
    if type(value) is dict:
        before = old if type(old) is dict else {}
        for name, item in value.items():
            child = schema.fields.get(name) or schema.additional
            if child is not None and child.custom:
                yield from rule_faults(child, item, before.get(name), f"{path}.{name}" if path else name)
    elif type(value) is list and schema.items is not None and schema.items.ruled:
        earlier = _matching(schema, value, old)
        for index, item in enumerate(value):
            yield from rule_faults(schema.items, item, earlier[index], f"{path}[{index}]")


def _matching(schema: Schema, value: list[Any], old: Any) -> list[Any]:
    """For each item the one that it replaces: only items of keyed lists can be told."""
    if type(old) is not list or schema.list_type != "map":
        return [None] * len(value)
    keys = schema.list_keys
    by_key = {tuple(repr(i.get(k)) for k in keys): i for i in old if type(i) is dict}
    return [by_key.get(tuple(repr(i.get(k)) for k in keys)) if type(i) is dict else None for i in value]


def _broken(rule: dict[str, Any], value: Any, old: Any, path: str) -> Cause | None:
    text = rule.get("rule", "")
    variables = {"self": value}
    if _OLD_SELF.search(text):
        if old is None:
            return None
        variables["oldSelf"] = old
    program = _program(text)
    if program is None:
        return None
    where = path + (rule.get("fieldPath") or "")
    try:
        if program(variables) is True:
            return None
    except (RuntimeError, ValueError, TypeError) as error:
        if _UNDEFINED in str(error):
            _not_understood(text, str(error))
            return None
        shown = f"Invalid value: {show(value)}: {error} evaluating rule: {rule.get('message') or text}"
        return Cause("FieldValueInvalid", shown, where)
    except BaseException as error:
        if not _is_panic(error):
            raise
        _not_understood(text, str(error))
        return None
    message = rule.get("message") or f"failed rule: {text}"
    reason = rule.get("reason", "FieldValueInvalid")
    shown = {"FieldValueForbidden": f"Forbidden: {message}", "FieldValueRequired": f"Required value: {message}"}.get(
        reason, f"Invalid value: {_short(value)}: {message}"
    )
    return Cause(reason if reason in _REASONS else "FieldValueInvalid", shown, where)


def _short(value: Any) -> str:
    """Upstream prints objects and lists by their type only."""
    if type(value) is dict:
        return '"object"'
    return '"array"' if type(value) is list else show(value)
