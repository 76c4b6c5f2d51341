"""The text that runs inside the sandbox: are two mathematical texts equal? One JSON line each.

Run as a script there, and imported nowhere. A question is {"answer", "golds", "integers"}; the
reply {"equal": true, false or null}. Every question is judged in a process of its own, which the
kernel ends at its share of processor time: a hostile text costs a second and no new start.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

CPU_SECONDS = 1.0
WALL_SECONDS = 60.0
STEPS = (2, 3, 4, 5)


def serve() -> None:
    """Answer questions until the input ends."""
    equal = equality()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps({"equal": judged(equal, json.loads(line))}), flush=True)


def judged(equal: Callable[..., bool | None], question: dict[str, Any]) -> bool | None:
    """Return what a child process makes of a question; None when it ends without a word."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            os.write(write, json.dumps(equal(**question)).encode())
        finally:
            os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], WALL_SECONDS)
    word = os.read(read, 16) if ready else b""
    os.close(read)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {b"true": True, b"false": False}.get(word)


def equality() -> Callable[..., bool | None]:
    """Import what takes long, and return the judge."""
    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr, Integer

    # Parsing once builds the tables of the grammar, which every child then has.
    config = (LatexExtractionConfig(boxed_match_priority=0),)

    def read(text: str) -> list[Any]:
        found: list[Any] = parse(
            f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=None
        )
        return found

    def equal(answer: str, golds: list[str], integers: bool) -> bool | None:
        mine = read(answer)
        theirs = [parsed for gold in golds if (parsed := read(gold)) and _is_maths(parsed[0])]
        if not theirs:
            return None
        if not mine or not _is_maths(mine[0]):
            return False
        verdicts = [_same(gold, mine, integers) for gold in theirs]
        return True if True in verdicts else None if None in verdicts else False

    def _is_maths(parsed: Any) -> bool:
        return not isinstance(parsed, str)

    def _same(gold: list[Any], mine: list[Any], integers: bool) -> bool | None:
        left, right = gold[0], mine[0]
        if integers and isinstance(left, Expr) and isinstance(right, Expr):
            symbols = sorted(left.free_symbols, key=str)
            if symbols:
                if {str(s) for s in symbols} != {str(s) for s in right.free_symbols}:
                    return False
                return _same_at_points(left, right, symbols)
        return bool(verify(gold, mine, timeout_seconds=None))

    def _same_at_points(left: Any, right: Any, symbols: list[Any]) -> bool | None:
        """Compare two formulas of whole numbers where both are defined.

        The letters grow with the alphabet in half of the points and against it in the others, so
        that one of two ("m of n") is the smaller in some.
        """
        told = 0
        names = {str(s): s for s in right.free_symbols}
        for order in (symbols, symbols[::-1]):
            for step in STEPS:
                shift = step + 4 * (order is symbols)
                values = {s: Integer(shift + k * (2 * shift + 1)) for k, s in enumerate(order)}
                other = {names[str(s)]: value for s, value in values.items()}
                first, second = (
                    formula.subs(at).doit().evalf(30)
                    for formula, at in ((left, values), (right, other))
                )
                if not (first.is_number and second.is_number):
                    continue
                if not (first.is_finite and second.is_finite):
                    continue
                if abs(first - second) > 1e-12 * max(1, abs(first)):
                    return False
                told += bool(first)
        return True if told >= len(STEPS) - 1 else None

    equal("x^2+\\frac{1}{2}", ["\\frac{1}{2}+x^2"], False)
    equal("\\binom{n}{2}", ["n(n-1)/2"], True)
    return equal


if __name__ == "__main__":
    serve()
