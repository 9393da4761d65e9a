"""Tokens -> syntax tree, with the macros recognised."""

from __future__ import annotations

from typing import NoReturn

from glebe.cel.syntax import (
    RESERVED,
    Call,
    Ident,
    ListLiteral,
    Literal,
    Macro,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
    SyntaxFault,
    Token,
    UInt,
    tokens,
)

#: How deep an expression may be nested, and how deep its tree may become (``a + b + c ...`` leans to the left): what
#: walks the tree recurses, and Python's stack is not endless.
DEEPEST = 60
TALLEST = 200

#: what an expression may begin with, in the words of upstream's parser
_ANY = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
_BINARY = {
    "||": 1,
    "&&": 2,
    "<": 3,
    "<=": 3,
    ">": 3,
    ">=": 3,
    "==": 3,
    "!=": 3,
    "in": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "%": 5,
}
_NAMES = {"in": "@in", **{op: f"_{op}_" for op in _BINARY if op != "in"}}
#: macro -> numbers of arguments it may have, of which the first are names
_MACROS = {
    "all": {2: 1, 3: 2},
    "exists": {2: 1, 3: 2},
    "exists_one": {2: 1, 3: 2},
    "existsOne": {3: 2},
    "map": {2: 1, 3: 1},
    "filter": {2: 1},
    "transformList": {3: 2, 4: 2},
    "transformMap": {3: 2, 4: 2},
    "transformMapEntry": {3: 2, 4: 2},
    "optMap": {2: 1},
    "optFlatMap": {2: 1},
}


def parse(text: str, *, bind: bool = False) -> Node:
    """The tree of one expression.

    :param bind: ``cel.bind(name, value, expression)`` is understood (cel-go's extension *bindings*).
    :raises SyntaxFault: it is none, or it is too big.
    """
    parser = _Parser(text, bind)
    tree = parser.expression(0)
    parser.expect_end()
    return tree


class _Parser:
    """Precedence climbing; ``_tall`` remembers how tall each tree is."""

    def __init__(self, text: str, bind: bool = False) -> None:
        self._tokens = tokens(text)
        self._bind = bind
        self._next = 0
        self._depth = 0
        self._tall: dict[int, int] = {}
        self._kept: list[Node] = []  # so that no identity is used twice

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _is(self, text: str) -> bool:
        token = self._tokens[self._next]
        return token.text == text and token.kind in ("op", "name")

    def _accept(self, text: str) -> bool:
        if self._is(text):
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> Token:
        if not self._is(text):
            self._unexpected(f"'{text}'")
        return self._take()

    def _unexpected(self, wanted: str) -> NoReturn:
        token = self._token
        raise SyntaxFault(token.at, f"Syntax error: mismatched input '{token.text}' expecting {wanted}")

    def expect_end(self) -> None:
        if self._token.kind != "end":
            token = self._token
            raise SyntaxFault(token.at, f"Syntax error: extraneous input '{token.text}' expecting <EOF>")

    def _made(self, node: Node, *children: Node) -> Node:
        height = 1 + max((self._tall.get(id(c), 1) for c in children), default=0)
        if height > TALLEST:
            raise SyntaxFault(node.at, f"expression recursion limit exceeded: {TALLEST}")
        self._tall[id(node)] = height
        self._kept.append(node)
        return node

    # -- grammar, from loose to tight ---------------------------------------------------------------------------------

    def expression(self, level: int) -> Node:
        """``level`` 0: with the conditional operator; otherwise only operators that bind at least so tightly."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise SyntaxFault(self._token.at, f"expression recursion limit exceeded: {DEEPEST}")
        node = self._unary()
        while True:
            token = self._token
            power = _BINARY.get(token.text, 0) if token.kind in ("op", "name") else 0
            if not power or power < level:
                break
            self._take()
            if power <= 2:
                node = self._junction(node, token, power)
                continue
            right = self.expression(power + 1)
            node = self._made(Call(token.at, _NAMES[token.text], None, [node, right]), node, right)
        if level == 0 and self._is("?"):
            node = self._conditional(node)
        self._depth -= 1
        return node

    def _junction(self, first: Node, token: Token, power: int) -> Node:
        """``a && b && c`` is one node with three arguments: chains may be long."""
        args = [first, self.expression(power + 1)]
        while self._accept(token.text):
            args.append(self.expression(power + 1))
        return self._made(Call(token.at, _NAMES[token.text], None, args), *args)

    def _conditional(self, condition: Node) -> Node:
        at = self._take().at
        yes = self.expression(1)
        self._expect(":")
        no = self.expression(0)
        return self._made(Call(at, "_?_:_", None, [condition, yes, no]), condition, yes, no)

    def _unary(self) -> Node:
        token = self._token
        if token.kind == "op" and token.text in "!-":
            count = 0
            while self._is(token.text):
                self._take()
                count += 1
            following = self._token
            if token.text == "-" and count % 2 and following.kind == "literal" and _is_number(following):
                node = self._member(self._negative(token))
                count -= 1
            else:
                node = self._member(None)
            if count % 2:
                node = self._made(Call(token.at, "-_" if token.text == "-" else "!_", None, [node]), node)
            return node
        node = self._member(None)
        if type(node) is Literal and type(node.value) is int and node.value >= 1 << 63:
            raise SyntaxFault(node.at, "invalid int literal")
        return node

    def _negative(self, sign: Token) -> Node:
        return Literal(sign.at, -self._take().value)

    def _member(self, node: Node | None) -> Node:
        node = self._primary() if node is None else node
        while True:
            token = self._token
            if token.kind != "op":
                return node
            if token.text == ".":
                node = self._after_dot(node, self._take())
            elif token.text == "[":
                self._take()
                optional = self._accept("?")
                index = self.expression(0)
                self._expect("]")
                node = self._made(Call(token.at, "_[?_]" if optional else "_[_]", None, [node, index]), node, index)
            elif token.text == "{" and (name := _qualified(node)):
                node = self._struct(name)
            else:
                return node

    def _after_dot(self, node: Node, dot: Token) -> Node:
        optional = self._accept("?")
        name = self._field()
        if not optional and self._is("("):
            opened = self._take()
            args = self._arguments(")")
            return self._member_call(node, name, opened, args)
        return self._made(Select(dot.at, node, name, optional=optional), node)

    def _field(self) -> str:
        token = self._take()
        if token.kind == "name" and token.text != "in":
            return token.text
        if token.kind == "quoted":
            return token.text[1:-1]
        self._next -= 1
        self._unexpected("IDENTIFIER")

    def _member_call(self, target: Node, name: str, opened: Token, args: list[Node]) -> Node:
        if self._bind and name == "bind" and len(args) == 3 and type(target) is Ident and target.name == "cel":
            return self._made(Macro(opened.at, "bind", args[1], (_variable(args[0]),), args[2:]), *args[1:])
        counts = _MACROS.get(name)
        if counts is not None and len(args) in counts:
            names = tuple(_variable(arg) for arg in args[: counts[len(args)]])
            if len(set(names)) != len(names):
                raise SyntaxFault(args[1].at, f"duplicate variable name: {names[0]}")
            kind = "exists_one" if name == "existsOne" else name
            rest = args[len(names) :]
            return self._made(Macro(opened.at, kind, target, names, rest), target, *rest)
        return self._made(Call(opened.at, name, target, args), target, *args)

    def _arguments(self, closing: str) -> list[Node]:
        args: list[Node] = []
        while not self._is(closing):
            args.append(self.expression(0))
            if not self._accept(","):
                break
        self._expect(closing)
        return args

    def _primary(self) -> Node:
        token = self._take()
        if token.kind == "literal":
            return Literal(token.at, token.value)
        if token.kind == "name" and token.text != "in":
            return self._named(token)
        if token.text == "(":
            node = self.expression(0)
            self._expect(")")
            return node
        if token.text == "[":
            return self._list(token)
        if token.text == "{":
            return self._map(token)
        if token.text == "." and self._token.kind == "name":
            return self._named(self._take())
        self._next -= 1
        raise SyntaxFault(token.at, f"Syntax error: mismatched input '{token.text}' expecting {_ANY}")

    def _named(self, token: Token) -> Node:
        if token.text in RESERVED:
            raise SyntaxFault(token.at, f"reserved identifier: {token.text}")
        if not self._is("("):
            return Ident(token.at, token.text)
        opened = self._take()
        args = self._arguments(")")
        if token.text == "has" and len(args) == 1:
            chosen = args[0]
            if type(chosen) is not Select or chosen.optional:
                raise SyntaxFault(chosen.at, "invalid argument to has() macro")
            return self._made(Select(opened.at, chosen.operand, chosen.field, test=True), chosen.operand)
        return self._made(Call(opened.at, token.text, None, args), *args)

    def _list(self, opened: Token) -> Node:
        items: list[Node] = []
        optional: set[int] = set()
        while not self._is("]"):
            if self._accept("?"):
                optional.add(len(items))
            items.append(self.expression(0))
            if not self._accept(","):
                break
        self._expect("]")
        return self._made(ListLiteral(opened.at, items, frozenset(optional)), *items)

    def _map(self, opened: Token) -> Node:
        entries: list[tuple[Node, Node, bool]] = []
        while not self._is("}"):
            optional = self._accept("?")
            key = self.expression(0)
            self._expect(":")
            entries.append((key, self.expression(0), optional))
            if not self._accept(","):
                break
        self._expect("}")
        return self._made(MapLiteral(opened.at, entries), *(n for key, value, _ in entries for n in (key, value)))

    def _struct(self, name: str) -> Node:
        opened = self._take()
        entries: list[tuple[str, Node, bool, int]] = []
        while not self._is("}"):
            optional = self._accept("?")
            field = self._field()
            at = self._expect(":").at
            entries.append((field, self.expression(0), optional, at))
            if not self._accept(","):
                break
        self._expect("}")
        return self._made(StructLiteral(opened.at, name, entries), *(e[1] for e in entries))


def _is_number(token: Token) -> bool:
    return type(token.value) in (int, float) and not isinstance(token.value, UInt)


def _qualified(node: Node) -> str:
    """``a.b.c`` as a name; "" for anything else."""
    parts: list[str] = []
    while type(node) is Select and not node.test and not node.optional:
        parts.append(node.field)
        node = node.operand
    if type(node) is not Ident:
        return ""
    return ".".join([node.name, *reversed(parts)])


def _variable(node: Node) -> str:
    if type(node) is not Ident:
        raise SyntaxFault(node.at, "argument is not an identifier")
    return node.name


qualified_name = _qualified
