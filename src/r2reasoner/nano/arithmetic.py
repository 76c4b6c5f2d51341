"""The arithmetic family: expressions over + - *, with a held-out rule on single operations.

Operands are 1 to 99 and every intermediate value 0 to 999. A fifth of all operations (left,
operator, right; by hash) is kept from every model and policy, a further tenth from the workers
only (policies are searched and calibrated on it). The main test takes expressions whose
operations, as met while evaluating, are all held out. Products of two numbers of two digits are
a kind of their own, outside the main set.
"""

import ast
import operator
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal

LARGEST_OPERAND: Final = 99
LARGEST_VALUE: Final = 999
OPERATORS: Final[dict[str, Callable[[int, int], int]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
_AST_SIGN: Final = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_STRENGTH: Final = {"+": 1, "-": 1, "*": 2}

Side = Literal["train", "dev", "test", "values"]
Operation = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Node:
    """A binary operation over two parts, with its value."""

    sign: str
    left: "Node | int"
    right: "Node | int"
    value: int


def _share(text: str) -> int:
    """Map a text to 0..99, the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest()) % 100


UNSEEN_VALUES: Final = frozenset(v for v in range(10, 100) if _share(f"value {v}") < 10)


@lru_cache(maxsize=1 << 20)
def side(operation: Operation) -> Side:
    """Return which side an operation belongs to.

    `train`: anyone; `dev`: policies and calibration, no worker; `test`: nobody; `values`: it
    touches a two-digit value that nobody has seen.
    """
    left, sign, right = operation
    if left in UNSEEN_VALUES or right in UNSEEN_VALUES:
        return "values"
    share = _share(f"{left}{sign}{right}")
    return "test" if share < 20 else "dev" if share < 30 else "train"


def is_large_product(operation: Operation) -> bool:
    """Tell a product of two numbers of at least two digits ("nobody can")."""
    left, sign, right = operation
    return sign == "*" and left > 9 and right > 9


def kind(operation: Operation) -> str:
    """Name an operation's kind for reports, e.g. `2x1 *`: digits of each side and operator."""
    left, sign, right = operation
    return f"{len(str(left))}x{len(str(right))} {sign}"


def parse(expression: str) -> Node | int:
    """Parse an expression into a tree.

    Raises ValueError when the text is no expression of the family.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"no arithmetic expression: {expression[:80]!r}") from error
    try:
        return _from_ast(tree)
    except RecursionError:
        raise ValueError(f"no arithmetic expression: {len(expression):,} characters") from None


def _from_ast(tree: ast.expr) -> Node | int:
    match tree:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _AST_SIGN:
            sign = _AST_SIGN[type(op)]
            a, b = _from_ast(left), _from_ast(right)
            return Node(sign, a, b, OPERATORS[sign](value_of(a), value_of(b)))
    raise ValueError("expected whole numbers joined by +, - or *")


def value_of(part: Node | int) -> int:
    """Return the value of a tree."""
    return part if isinstance(part, int) else part.value


def operations(part: Node | int) -> Iterator[Operation]:
    """Yield the operations of a tree as they are met while evaluating."""
    if isinstance(part, Node):
        yield from operations(part.left)
        yield from operations(part.right)
        yield value_of(part.left), part.sign, value_of(part.right)


def render(part: Node | int) -> str:
    """Write a tree as text, with the brackets that its shape needs."""
    if isinstance(part, int):
        return str(part)
    strength = _STRENGTH[part.sign]
    left, right = render(part.left), render(part.right)
    if isinstance(part.left, Node) and _STRENGTH[part.left.sign] < strength:
        left = f"( {left} )"
    if isinstance(part.right, Node) and _STRENGTH[part.right.sign] <= strength:
        right = f"( {right} )"
    return f"{left} {part.sign} {right}"


def sample(operands: int, sides: frozenset[Side], rng: random.Random) -> Node:
    """Draw an expression uniformly: shape, operands, then operators over what stays in range.

    An expression that meets an operation outside `sides`, or a large product, is drawn again as
    a whole, so what remains has the family's own distribution.
    """
    while True:
        node = _grow(operands, sides, rng)
        if isinstance(node, Node):
            return node


def _grow(operands: int, sides: frozenset[Side], rng: random.Random) -> Node | int | None:
    if operands == 1:
        return rng.randint(1, LARGEST_OPERAND)
    first = rng.randint(1, operands - 1)
    left = _grow(first, sides, rng)
    right = _grow(operands - first, sides, rng) if left is not None else None
    if left is None or right is None:
        return None
    a, b = value_of(left), value_of(right)
    signs = [
        sign
        for sign, apply in OPERATORS.items()
        if 0 <= apply(a, b) <= LARGEST_VALUE and not is_large_product((a, sign, b))
    ]
    if not signs:
        return None
    sign = rng.choice(signs)
    if side((a, sign, b)) not in sides:
        return None
    return Node(sign, left, right, OPERATORS[sign](a, b))


TEST: Final[frozenset[Side]] = frozenset({"test"})
UNSEEN: Final[frozenset[Side]] = frozenset({"test", "values"})


def held_out_items(
    operands: list[int], count: int, seed: int, *, unseen_values: bool = False
) -> list[dict[str, str | int]]:
    """Return `count` distinct test items `{"expression", "value"}`, operand counts in turn.

    With `unseen_values`, each item touches a two-digit value that no model was trained on.
    """
    rng = random.Random(f"arithmetic {seed}")
    items: dict[str, int] = {}
    while len(items) < count:
        node = sample(operands[len(items) % len(operands)], UNSEEN if unseen_values else TEST, rng)
        if unseen_values and all(side(o) != "values" for o in operations(node)):
            continue
        items[render(node)] = node.value
    return [{"expression": text, "value": value} for text, value in items.items()]
