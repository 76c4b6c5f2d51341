from r2reasoner.benchmarks import ARITHMETIC, CSQA, SCAN
from r2reasoner.nano.solve import solve_arithmetic, solve_scan, solver


def test_both_tasks_are_solved_and_others_are_not() -> None:
    assert solver(ARITHMETIC) is solve_arithmetic
    assert solver(SCAN) is solve_scan
    assert solver(CSQA) is None


def test_what_is_right() -> None:
    assert solve_arithmetic("( 2 + 3 ) * 4") == "20"
    assert solve_scan("jump twice") == "I_JUMP I_JUMP"


def test_other_texts_have_no_answer() -> None:
    assert solve_arithmetic("2 +") is None
    assert solve_arithmetic("jump twice") is None
    assert solve_scan("2 + 3") is None
    assert solve_scan("") is None
