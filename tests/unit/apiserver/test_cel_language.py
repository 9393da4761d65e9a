"""CEL as Kubernetes speaks it. Every expression of ``TRUE`` was also put to a real kube-apiserver of 1.36."""

from __future__ import annotations

import contextlib
import time

import pytest

from glebe.cel import types as t
from glebe.cel.budget import PER_CALL, Budget, EvalError, OutOfBudget
from glebe.cel.environment import CompileError, Environment

OBJECT = {
    "metadata": {"name": "a", "labels": {"team": "x", "a/b": "c"}},
    "data": {"one": "1", "text": "hello world", "empty": ""},
}
ENVIRONMENT = Environment({"object": t.DYN})

TRUE = r"""
1 + 2 * 3 == 7
-7 / 2 == -3 && -7 % 3 == -1
7u + 1u == 8u
dyn(1) == 1.0 && dyn(1u) == 1 && 2.5 > 2
0x1F == 31
1.5e3 == 1500.0
'a' + "b" == 'ab'
r'\d' == '\\d'
'''tri'ple''' == "tri'ple"
'\u00e9\x41\101' == 'éAA'
b'abc' == bytes('abc')
size('héllo') == 5 && size(b'\xff') == 1
'abc' < 'abd' && true > false
[1, 2] + [3] == [1, 2, 3]
{'a': 1}.a == 1 && {'a': 1}['a'] == 1
{1: 'x'}[1] == 'x'
2 in [1, 2] && 'a' in {'a': 1} && !(3 in [1])
has(object.data.one) && !has(object.data.two)
object.metadata.labels['a/b'] == 'c'
[1, 2, 3].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2].exists_one(x, x == 2)
[1, 2, 3].filter(x, x % 2 == 1) == [1, 3]
[1, 2].map(x, x * 2) == [2, 4] && [1, 2, 3].map(x, x > 1, x * x) == [4, 9]
object.data.all(k, k != '')
object.data.exists(k, object.data[k] == '1')
[[1], [2, 3]].all(l, l.all(x, x > 0))
(1 / 0 > 0) || true
!((1 / 0 > 0) && false)
[0, 1].exists(x, 1 / x == 1)
1 > 0 ? true : (1 / 0 == 1)
type(1) == int && type('') == string && type(null) == null_type && type([]) == list
dyn(1) == 1
int('42') == 42 && int(3.9) == 3 && uint(7) == 7u && double('1.5') == 1.5
string(1.0) == '1' && string(true) == 'true' && string(b'abc') == 'abc'
string(duration('90s')) == '90s' && duration('1h') > duration('59m')
timestamp('2024-02-29T12:30:45Z').getMonth() == 1
timestamp('2024-02-29T12:30:45Z').getDayOfWeek() == 4
timestamp('2024-02-29T12:30:45Z') - timestamp('2024-02-29T12:30:15Z') == duration('30s')
timestamp('2024-02-29T23:30:45Z').getDate('+02:00') == 1
duration('3661s').getHours() == 1 && duration('3661s').getMinutes() == 61
object.data.text.matches('^h.*d$') && 'foobar'.matches('o+b')
object.data.text.startsWith('hello') && object.data.text.endsWith('world') && object.data.text.contains('o w')
'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']
['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'
'TacoCat'.lowerAscii() == 'tacocat' && 'é'.upperAscii() == 'é'
'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('l', 3) == 3
'hello'.replace('l', 'L', 1) == 'heLlo' && 'hello'.substring(1, 3) == 'el' && 'hello'.charAt(1) == 'e'
'  x '.trim() == 'x'
'%s is %s'.format(['a', 1]) == 'a is 1' && '%d%%'.format([5]) == '5%' && '%.2f'.format([1.234]) == '1.23'
'%x %X %b %o'.format([255, 255, 5, 8]) == 'ff FF 101 10'
'%s'.format([[1, 2]]) == '[1, 2]'
'abc 123'.find('[0-9]+') == '123' && 'x'.find('[0-9]+') == ''
'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']
[1, 2, 3].sum() == 6 && [1.5, 2.5].sum() == 4.0 && [3, 1, 2].min() == 1 && ['a', 'c', 'b'].max() == 'c'
[1, 2, 2].isSorted() && ![2, 1].isSorted()
[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(5) == -1
sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])
object.?data.?nothing.orValue('x') == 'x' && object.data[?'one'].orValue('') == '1'
optional.of(1).hasValue() && !optional.none().hasValue() && optional.ofNonZeroValue(0) == optional.none()
optional.of(2).optMap(x, x * 2).value() == 4
optional.none().or(optional.of(3)).value() == 3
[1, ?optional.none(), ?optional.of(2)] == [1, 2] && {?'a': optional.none()} == {}
{'a': 1, 'b': 2}.all(k, v, v > 0) && [5, 6].exists(i, v, i == 1 && v == 6)
[1, 2].transformList(i, v, v * 10 + i) == [10, 21]
{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}
quantity('1Gi').isGreaterThan(quantity('1000Mi')) && quantity('200M').asInteger() == 200000000
quantity('1500m').compareTo(quantity('1.5')) == 0 && quantity('1').add(2).asInteger() == 3
isQuantity('1.3Gi') && !isQuantity('1.3GiB') && quantity('-5').isLessThan(quantity('0'))
url('https://user@Example.com:80/a%20b?x=1&x=2').getPort() == '80'
url('https://example.com:80/a?x=1&x=2').getQuery() == {'x': ['1', '2']}
url('https://[::1]:80/').getHostname() == '::1' && url('/path').getScheme() == ''
isURL('https://a.b') && !isURL('../x')
ip('192.168.0.1').family() == 4 && ip('::1').isLoopback() && isIP('1.2.3.4') && !isIP('1.2.3')
ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')
ip('8.8.8.8').isGlobalUnicast() && ip('169.254.1.1').isLinkLocalUnicast() && string(ip('::1')) == '::1'
cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))
cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8
isCIDR('::/0') && !isCIDR('1.2.3.4') && cidr('10.0.0.1/8').ip() == ip('10.0.0.1')
semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1
isSemver('1.0.0+build') && !isSemver('v1.0') && isSemver('v1.0', true) && semver('v1.02', true).minor() == 2
!format.dns1123Label().validate('my-name').hasValue()
format.dns1123Label().validate('My_Name').value().size() > 0
format.named('dns1123Subdomain').hasValue() && !format.named('nothing').hasValue()
format.uuid().validate('not').hasValue() && !format.date().validate('2024-01-01').hasValue()
request.operation == 'CREATE' && request.resource.resource == 'configmaps'
authorizer.group('').resource('pods').namespace('default').check('create').allowed()
authorizer.path('/healthz').check('get').allowed()
namespaceObject.metadata.name == 'default'
oldObject == null
"""
_OF_ADMISSION = ("request", "authorizer", "namespaceObject", "oldObject")
EXPRESSIONS = [line for line in TRUE.strip().splitlines() if not line.startswith(_OF_ADMISSION)]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_what_is_true(text: str) -> None:
    assert ENVIRONMENT.compile(text).evaluate({"object": OBJECT}) is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objct.a", "ERROR: <input>:1:1: undeclared reference to 'objct' (in container '')\n | objct.a\n | ^"),
        ("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^"),
        ("nothing(1)", "ERROR: <input>:1:8: undeclared reference to 'nothing'"),
        ("'a'.size(1)", "found no matching overload for 'size' applied to 'string.(int)'"),
        ("1 == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("(1).x", "type 'int' does not support field selection"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("(1).all(x, true)", "expression of type 'int' cannot be range of a comprehension"),
        ("object.a +", "ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>'"),
        ("true\n  && x", "ERROR: <input>:2:6: undeclared reference to 'x' (in container '')\n |   && x\n | .....^"),
        ("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument"),
        ("'%s'.format([1, 'a'])", "too many arguments supplied to string.format (expected 1, got 2)"),
        ("duration('x')", "invalid duration argument"),
        ("has(object)", "invalid argument to has() macro"),
        ("9223372036854775808", "invalid int literal"),
        ("'\\q'", "unable to unescape string"),
        ("'open", "Syntax error: token recognition error"),
        ("a.for", "undeclared reference to 'a'"),
        ("while", "reserved identifier: while"),
    ],
)
def test_what_does_not_compile(text: str, said: str) -> None:
    with pytest.raises(CompileError) as caught:
        ENVIRONMENT.compile(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("1u - 2u", "unsigned integer overflow"),
        ("object.nothing", "no such key: nothing"),
        ("[1][5]", "index out of bounds: 5"),
        ("object.data.matches('x')", "no such overload"),
        ("optional.none().value()", "optional.none() dereference"),
        ("{'a': 1, 'a': 2}", "repeated key"),
        ("'abc'.substring(2, 1)", "invalid substring range"),
        ("quantity('x')", "quantities must match the regular expression"),
        ("'%d'.format(['a'])", "cannot be used"),
        ("dyn('(').matches(dyn('('))", "missing closing )"),
    ],
)
def test_what_fails(text: str, said: str) -> None:
    with pytest.raises(EvalError) as caught:
        ENVIRONMENT.compile(text).evaluate({"object": OBJECT})
    assert said in str(caught.value)


def _nest(depth: int) -> str:
    text = "true"
    for level in range(depth):
        text = f"[0,1,2,3,4,5,6,7,8,9].all(x{level}, {text})"
    return text


def _double(times: int) -> str:
    text = "object.text"
    for level in range(times):
        text = f"optional.of({text}).optMap(v{level}, v{level} + v{level}).value()"
    return f"size({text}) > 0"


HOSTILE = {
    "nested comprehensions": _nest(12),
    "doubled strings": _double(40),
    "doubled lists": "size([1].map(x, x)) > 0 && " + _double(40).replace("object.text", "[object.text]"),
    "replacing": "size(object.text.replace('a', object.text).replace('a', object.text)) > 0",
    "joining": "size(object.items.map(x, object.text).join(object.text)) > 0",
    "comparing lists": "object.items.all(x, object.items == object.items)",
    "searching lists": "object.items.all(x, x in object.items) && sets.contains(object.items, object.items)",
    "a slow pattern": "object.items.exists(x, object.text.matches('(a*)*(a*)*(a*)*b'))",
    "splitting": "object.items.all(x, object.text.split('').size() > 0)",
    "formatting": "object.items.all(x, '%s%s%s'.format([object.items, object.items, object.text]) != '')",
    "sums": "object.items.all(x, object.items.sum() >= 0 && object.items.max() >= 0)",
    "finding all": "object.items.all(x, object.text.findAll('a').size() > 0)",
    "big maps": "object.items.all(x, object.items.transformMap(k, v, object.items).size() > 0)",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_expressions_end_quickly(name: str) -> None:
    """By count, not by clock: what is done is bounded by what may be spent. The clock only guards against nonsense."""
    value = {"text": "a" * 20_000, "items": list(range(2_000))}
    program = ENVIRONMENT.compile(HOSTILE[name])
    budget = Budget(PER_CALL)
    before = time.process_time()
    with pytest.raises(OutOfBudget):
        program.evaluate({"object": value}, budget)
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "1" + ")" * 5000,
        "[" * 5000,
        "!" * 5000 + "true",
        "-" * 5000 + "1",
        "1" + " + 1" * 5000,
        "object" + ".a" * 5000,
        "object" + "[0]" * 5000,
        "true" + " ? true : true" * 2000,
        "1" * 100_001,
        "x" * 200_000,
    ],
)
def test_huge_texts_are_refused_or_done(text: str) -> None:
    with contextlib.suppress(CompileError, EvalError):
        ENVIRONMENT.compile(text).evaluate({"object": OBJECT})


def test_long_chains_of_and_are_no_problem() -> None:
    text = " && ".join(f"object.metadata.name != 'n{i}'" for i in range(1000))
    assert ENVIRONMENT.compile(text).evaluate({"object": OBJECT}) is True


def test_a_request_has_one_budget_for_all_its_expressions() -> None:
    budget = Budget(100)
    program = ENVIRONMENT.compile("[1,2,3].all(x, x > 0)")
    while budget.left > 20:
        program.evaluate({"object": OBJECT}, budget)
    with pytest.raises(OutOfBudget, match="running out of cost budget"):
        program.evaluate({"object": OBJECT}, Budget(2))
