"""SCAN: a command in simple English becomes a sequence of actions (Lake & Baroni 2018).

Right when the whole sequence matches exactly. A file's rows have `command` and `actions`.
"""

from typing import Final

from r2reasoner.benchmarks.base import Benchmark
from r2reasoner.benchmarks.grading import sequence

INSTRUCTION: Final = """\
Translate the command into its actions: I_WALK, I_LOOK, I_RUN, I_JUMP, I_TURN_LEFT, I_TURN_RIGHT.
"VERB left" turns left, then does VERB; "VERB opposite left" turns left twice, then does VERB; \
"VERB around left" does "turn left, VERB" four times; right likewise; the verb "turn" is the turns \
alone. "twice" and "thrice" repeat the phrase before them. "A and B" is A then B; "A after B" is B \
then A.
Answer with the actions alone, in order, separated by spaces.
Command:"""

SCAN: Final = Benchmark(
    name="scan",
    query_field="command",
    gold_field="actions",
    grade=sequence,
    default_split="length",
    files={
        "simple": "simple_test.jsonl",
        "length": "length_test.jsonl",
        "addprim_jump": "addprim_jump_test.jsonl",
    },
    instruction=INSTRUCTION,
)
