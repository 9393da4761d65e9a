"""Text: CEL's own functions, the strings extension (version 2), Kubernetes' find and findAll."""

from __future__ import annotations

from typing import Any

from glebe.cel import regex
from glebe.cel.budget import Budget, EvalError, of_text
from glebe.cel.registry import Library
from glebe.cel.standard import format_double, text_cost, to_text
from glebe.cel.syntax import UInt
from glebe.cel.values import Duration, Timestamp, TypeValue, type_name

_ASCII_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ASCII_LOWER = {v: k for k, v in _ASCII_UPPER.items()}
_SPACE = " \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_ESCAPED = str.maketrans({char: "\\" + code for char, code in zip('\a\b\f\n\r\t\v\\"', 'abfnrtv\\"', strict=True)})


def _contains(budget: Budget, text: str, part: str) -> bool:
    # Python searches in linear time from a few hundred characters on; below that the product bounds it
    budget.spend(of_text(len(text)) * max(1, of_text(len(part))))
    return part in text


def _starts(budget: Budget, text: str, part: str) -> bool:
    budget.spend(of_text(len(part)))
    return text.startswith(part)


def _ends(budget: Budget, text: str, part: str) -> bool:
    budget.spend(of_text(len(part)))
    return text.endswith(part)


def _at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise EvalError(f"index out of range: {index}")
    return text[index : index + 1]


def _index_of(budget: Budget, text: str, part: str, start: int = 0) -> int:
    budget.spend(of_text(len(text)) * max(1, of_text(len(part))))
    if not 0 <= start <= len(text):
        raise EvalError(f"index out of range: {start}")
    return text.find(part, start)


def _last_index_of(budget: Budget, text: str, part: str, last: int | None = None) -> int:
    budget.spend(of_text(len(text)) * max(1, of_text(len(part))))
    if last is None:
        return text.rfind(part)
    if not 0 <= last <= len(text):
        raise EvalError(f"index out of range: {last}")
    return text.rfind(part, 0, last + len(part))


def _substring(budget: Budget, text: str, start: int, end: int | None = None) -> str:
    budget.spend(of_text(len(text)))
    end = len(text) if end is None else end
    if not 0 <= start <= len(text) or not 0 <= end <= len(text):
        raise EvalError(f"index out of range: {start if not 0 <= start <= len(text) else end}")
    if start > end:
        raise EvalError(f"invalid substring range. start: {start}, end: {end}")
    return text[start:end]


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    budget.spend(of_text(len(text)) * max(1, of_text(len(old))))
    found = text.count(old)
    if count >= 0:
        found = min(found, count)
    budget.spend(of_text(len(text) + found * len(new)))
    return text.replace(old, new, found)


def _split(budget: Budget, text: str, separator: str, limit: int = -1) -> list[str]:
    budget.spend(10 + of_text(len(text)) * max(1, of_text(len(separator))))
    if limit == 0:
        return []
    if separator:
        parts = text.count(separator) + 1
        budget.spend(min(parts, limit) if limit > 0 else parts)
        return text.split(separator, -1 if limit < 0 else limit - 1)
    budget.spend(len(text))
    return list(text) if limit < 0 or limit >= len(text) else [*text[: limit - 1], text[limit - 1 :]]


def _join(budget: Budget, items: list[Any], separator: str = "") -> str:
    budget.spend(1 + len(items))
    if any(type(item) is not str for item in items):
        raise EvalError("no such overload: join")
    budget.spend(of_text(sum(map(len, items)) + len(separator) * len(items)))
    return separator.join(items)


def _quote(text: str) -> str:
    return '"' + text.translate(_ESCAPED) + '"'


def _find(budget: Budget, text: str, pattern: str) -> str:
    return next(iter(_found(budget, text, pattern, 1)), "")


def _found(budget: Budget, text: str, pattern: str, limit: int = -1) -> list[str]:
    budget.spend(1 + of_text(len(text) + 1) * max(1, len(pattern) // 4))
    try:
        compiled = regex.compile(pattern)
    except regex.BadPattern as error:
        raise EvalError(str(error)) from None
    out: list[str] = []
    if limit == 0:
        return out
    for match in compiled.finditer(text):
        # each match may read far ahead before it ends where it does
        budget.spend(1 + of_text(len(text)))
        out.append(match.group(0))
        if len(out) == limit:
            break
    return out


# ------------------------------------------------------------------------------------------------------------ format


def _shown(value: Any, budget: Budget) -> str:
    """``%s``."""
    budget.spend(3)
    if value is None:
        return "null"
    if type(value) is str:
        return value
    if type(value) is list:
        return "[" + ", ".join(_nested(v, budget) for v in value) + "]"
    if isinstance(value, dict):
        pairs = sorted((_nested(k, budget), _nested(v, budget)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if type(value) is TypeValue:
        return value.name
    if type(value) in (bool, int, UInt, float, bytes, Timestamp, Duration):
        return to_text(value)
    raise EvalError(f"error during formatting: string clause can only be used on strings, was given {type_name(value)}")


def _nested(value: Any, budget: Budget) -> str:
    return f'"{value}"' if type(value) is str else _shown(value, budget)


def _clause(verb: str, precision: int, value: Any, budget: Budget) -> str:
    number = isinstance(value, int) and type(value) is not bool
    if verb == "s":
        return _shown(value, budget)
    if verb == "d" and (number or type(value) is float):
        return str(int(value)) if number else format_double(value)
    if verb in "fe" and (number or type(value) is float):
        return f"{float(value):.{precision}{verb}}"
    if verb == "b" and (number or type(value) is bool):
        return f"{int(value):b}"
    if verb == "o" and number:
        return f"{int(value):o}"
    if verb in "xX":
        if number:
            return f"{int(value):{verb}}"
        if type(value) in (str, bytes):
            budget.spend(of_text(len(value)))
            text = (value.encode() if type(value) is str else value).hex()
            return text.upper() if verb == "X" else text
    if verb not in "sdfeboxX":
        raise EvalError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')
    raise EvalError(f"error during formatting: clause %{verb} cannot be used on {type_name(value)}")


def _format(budget: Budget, text: str, args: list[Any]) -> str:
    budget.spend(of_text(len(text)) + 1)
    out: list[str] = []
    at = used = 0
    while (percent := text.find("%", at)) >= 0:
        out.append(text[at:percent])
        at = percent + 1
        if text[at : at + 1] == "%":
            out.append("%")
            at += 1
            continue
        precision = 6
        if text[at : at + 1] == ".":
            end = at + 1
            while end < len(text) and text[end].isdigit():
                end += 1
            precision, at = int(text[at + 1 : end][:4] or 0), end
            if precision > 1000:
                raise EvalError("could not parse formatting clause: precision is too big")
        if at >= len(text):
            raise EvalError("could not parse formatting clause: unexpected end of string")
        if used >= len(args):
            raise EvalError(f"index {used} out of range")
        piece = _clause(text[at], precision, args[used], budget)
        budget.spend(of_text(len(piece)))
        out.append(piece)
        used += 1
        at += 1
    out.append(text[at:])
    return "".join(out)


def declare(library: Library) -> None:
    """Add all of these to ``library``."""
    member = library.member
    member("string", "contains(string) -> bool", _contains, "product")
    member(
        "string", "startsWith(string) -> bool", lambda b, s, p: (b.spend(of_text(len(p))), s.startswith(p))[1], "second"
    )
    member("string", "endsWith(string) -> bool", lambda b, s, p: (b.spend(of_text(len(p))), s.endswith(p))[1], "second")
    member("string", "charAt(int) -> string", lambda b, s, i: _at(s, i))
    for args in ("string", "string, int"):
        member("string", f"indexOf({args}) -> int", _index_of, "product")
        member("string", f"lastIndexOf({args}) -> int", _last_index_of, "product")
        member("string", f"split({args}) -> list(string)", _split, "text")
    for args in ("int", "int, int"):
        member("string", f"substring({args}) -> string", _substring, "text")
    for args in ("string, string", "string, string, int"):
        member("string", f"replace({args}) -> string", _replace, "text")
    member("string", "lowerAscii() -> string", text_cost(lambda s: s.translate(_ASCII_LOWER)), "text")
    member("string", "upperAscii() -> string", text_cost(lambda s: s.translate(_ASCII_UPPER)), "text")
    member("string", "trim() -> string", text_cost(lambda s: s.strip(_SPACE)), "text")
    member("list(string)", "join() -> string", _join, "items")
    member("list(string)", "join(string) -> string", _join, "items")
    member("string", "format(list(dyn)) -> string", _format, "text")
    library.add("strings.quote(string) -> string", text_cost(_quote), "text")
    member("string", "find(string) -> string", _find, "regex")
    member("string", "findAll(string) -> list(string)", _found, "regex")
    member("string", "findAll(string, int) -> list(string)", _found, "regex")
