"""Arithmetic: the value of an expression of whole numbers with + - * and brackets.

Right when the number is equal. A file's rows have `expression` and `value`.
"""

from typing import Final

from r2reasoner.benchmarks.base import Benchmark
from r2reasoner.benchmarks.grading import number

INSTRUCTION: Final = "Work out the value of this expression. Answer with the number alone."

ARITHMETIC: Final = Benchmark(
    name="arithmetic",
    query_field="expression",
    gold_field="value",
    grade=number,
    default_split="test",
    files={"test": "test.jsonl", "values": "values.jsonl"},
    instruction=INSTRUCTION,
)
