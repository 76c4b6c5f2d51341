import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reasoner.errors import PlanError, PlanFault
from r2reasoner.plan import (
    CONVERSATION_SCHEMA,
    MAX_ANSWER_REFERENCES,
    MAX_BYTES,
    MAX_CONTEXT,
    MAX_EXPANDED,
    MAX_SUBTASKS,
    PLAN_SCHEMA,
    direct,
    expand,
    in_context,
    read_graph,
    read_json,
    read_line,
    read_prose,
    take_step,
    validate,
    whole,
    write_line,
)
from r2reasoner.types import Plan, Subtask


def plan(*texts: str, answer: str | None = None) -> Plan:
    return Plan(tuple(Subtask(text) for text in texts), answer or f"#{len(texts)}")


def read_whole_line(text: str) -> Plan:
    return whole(read_line(text))


READERS: list[Callable[[str], Plan]] = [read_whole_line, read_json, read_prose]


def fault_of(act: Callable[[], Any]) -> PlanFault:
    with pytest.raises(PlanError) as caught:
        act()
    assert str(caught.value.fault) in str(caught.value)
    return caught.value.fault


BROKEN: list[tuple[PlanFault, Plan]] = [
    (PlanFault.EMPTY, Plan((), "#1")),
    (PlanFault.TOO_MANY, plan(*(f"s{n}" for n in range(MAX_SUBTASKS + 1)))),
    (PlanFault.TOO_MANY, plan(*(f"s{n}" for n in range(10_000)))),
    (PlanFault.TOO_LARGE, plan("x" * (MAX_BYTES + 1))),
    (PlanFault.TOO_LARGE, plan("ü" * (MAX_BYTES // 2 + 1))),
    (PlanFault.TOO_LARGE, plan("a", answer="#1" + " " * MAX_BYTES)),
    (PlanFault.BLANK, plan("a", " \n ")),
    (PlanFault.CONTROL, plan("a\x1b[2J")),
    (PlanFault.CONTROL, plan("a\x00")),
    (PlanFault.CONTROL, plan("a\x9b")),
    (PlanFault.CONTROL, plan("half a pair \ud800")),
    (PlanFault.DANGLING, plan("a", "#3")),
    (PlanFault.DANGLING, plan("a #0", "b")),
    (PlanFault.DANGLING, plan("a", "b", answer="#3")),
    (PlanFault.DANGLING, Plan((Subtask("a", (-1,)),), "#1")),
    (PlanFault.DANGLING, plan("#" + "9" * 5000)),
    (PlanFault.DANGLING, plan("a", "#0000001")),
    (PlanFault.FORWARD, plan("a #2", "b")),
    (PlanFault.CYCLE, plan("a #1")),
    (PlanFault.CYCLE, plan("a #2", "b #1")),
    (PlanFault.CYCLE, Plan((Subtask("a", (3,)), Subtask("b #1"), Subtask("c #2")), "#3")),
    (PlanFault.DUPLICATE, plan("a", "b", "a")),
    (PlanFault.ANSWER, plan("a", answer="forty-two")),
    (PlanFault.ANSWER, plan("a", answer="the answer is #1")),
    (PlanFault.ANSWER, plan("a", answer="#1 ٣")),
    (PlanFault.ANSWER, plan("a", answer="#1\x1b")),
    (PlanFault.ANSWER, plan("a", answer=" ".join(["#1"] * (MAX_ANSWER_REFERENCES + 1)))),
]


class TestValidity:
    @pytest.mark.parametrize(("fault", "broken"), BROKEN)
    def test_each_rule_by_its_fault(self, fault: PlanFault, broken: Plan) -> None:
        assert fault_of(lambda: validate(broken)) is fault

    def test_every_fault_is_tried_somewhere(self) -> None:
        elsewhere = {PlanFault.UNREADABLE, PlanFault.UNKNOWN_MODEL}  # readers; allocator
        assert {fault for fault, _ in BROKEN} | elsewhere == set(PlanFault)

    @pytest.mark.parametrize(
        "kept",
        [
            plan("a"),
            plan("a", "b #1", "#1 #2"),
            plan("a", "b", answer="#1 #1, #2\n#1"),
            plan("a\tb\nc"),
            plan(*(f"s{n}" for n in range(MAX_SUBTASKS))),
            plan("x" * (MAX_BYTES - 2)),
            Plan((Subtask("a"), Subtask("b", (1,)), Subtask("b")), "#3"),
            plan("a", answer=" ".join(["#1"] * MAX_ANSWER_REFERENCES)),
            plan("say #hashtag and # 1"),
        ],
    )
    def test_what_keeps_the_rules_is_returned_as_it_is(self, kept: Plan) -> None:
        assert validate(kept) is kept

    def test_limits_can_be_set(self) -> None:
        two = plan("a", "b")
        assert fault_of(lambda: validate(two, max_subtasks=1)) is PlanFault.TOO_MANY
        assert fault_of(lambda: validate(two, max_bytes=3)) is PlanFault.TOO_LARGE
        assert validate(two, max_subtasks=2, max_bytes=4) is two

    @given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=300))
    def test_a_direct_plan_is_valid_whatever_the_query_says(self, query: str) -> None:
        if query.strip():
            assert validate(direct(query)).is_direct


FRAGMENTS = st.sampled_from(
    [
        *"#=;:.*-{}[]()\"'`\n 0129",
        *("#1", "#2", "...", "```json", "Step 1:", "2. ", "step 3", "\x00"),
        *('{"subtasks": [', '{"text": "a", "needs": []}', '"answer": "#1"}'),
        *("\ud800", "\u2028", "é"),
    ]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("#1"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["subtasks", "answer", "text", "needs"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=12,
)


class TestAnyText:
    def check(self, text: str) -> None:
        for read in READERS:
            try:
                valid = validate(read(text))
            except PlanError:
                continue
            assert 1 <= len(valid.subtasks) <= MAX_SUBTASKS
            order = [n for s in valid.subtasks for n in s.dependencies]
            assert all(1 <= n < len(valid.subtasks) for n in order)

    @given(st.text())
    def test_free_text(self, text: str) -> None:
        self.check(text)

    @settings(max_examples=300)
    @given(st.lists(FRAGMENTS, max_size=40).map("".join))
    def test_text_like_plans(self, text: str) -> None:
        self.check(text)

    @settings(max_examples=200)
    @given(JSON_VALUES.map(json.dumps))
    def test_any_json(self, text: str) -> None:
        self.check(text)

    @given(
        st.fixed_dictionaries(
            {
                "subtasks": st.lists(
                    st.fixed_dictionaries(
                        {"text": st.text(), "needs": st.lists(st.integers(-1, 6), max_size=4)}
                    ),
                    max_size=6,
                ),
                "answer": st.lists(FRAGMENTS, max_size=6).map("".join),
            }
        )
    )
    def test_json_of_the_right_shape(self, document: dict[str, Any]) -> None:
        self.check(json.dumps(document))


@contextmanager
def no_hang(seconds: int = 30) -> Iterator[None]:
    """Turn a search that explodes into a failure; what is linear ends thousands of times sooner."""

    def give_up(*_: object) -> None:
        raise AssertionError(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


N = 4 * MAX_BYTES - 200
HOSTILE = {
    "spaces in a fence": "```json" + " " * N,
    "an open fence": "```" + "a" * N,
    "fences": "```" * (N // 3),
    "blanks after a number": "1" + " " * N + "x",
    "blanks and stars": "1" + " " * (N // 2) + "**" + " " * (N // 2) + "x",
    "a number's marks": "1." + ".:)" * (N // 3) + " " * 100,
    "stars": "*" * N,
    "hashes and blanks": "# " * (N // 2),
    "steps named": "1. " + "step " * (N // 5),
    "many lines": "1. a\n" + "b\n" * (N // 2),
    "many numbered lines": "".join(f"{n}. a\n" for n in range(1, 30_000)),
    "many separators": ";" * N,
    "many subtasks": ";".join(map(str, range(40_000))),
    "many references": "#1 " * (N // 3),
    "a long reference": "#" + "1" * N,
    "equal signs": "a ; = " * (N // 6),
    "deep lists": '{"subtasks": ' + "[" * N,
    "deep objects": '{"subtasks": [' + '{"text":' * (N // 9),
    "closed deep lists": '{"subtasks": ' + "[" * (N // 3) + "]" * (N // 3) + "}",
    "a long number": '{"subtasks": [{"text": "a", "needs": [' + "1" * (N - 50) + "]}]}",
    "many needs": '{"subtasks": [{"text": "a", "needs": [' + "1," * (N // 2 - 50) + "1]}]}",
    "10,000 subtasks": json.dumps({"subtasks": ["ab"] * 10_000, "answer": "#1"}),
    "braces": "{" * (N // 2) + "}" * (N // 2),
    "a megabyte": "x" * 2**20,
    "a megabyte of steps": "1. a\n" * (2**20 // 5),
    "a megabyte of JSON": json.dumps({"subtasks": ["a" * 2**20]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_is_a_hang(name: str) -> None:
    with no_hang():
        TestAnyText().check(HOSTILE[name])


TEXTS = [" ".join(words) for words in product(["12", "( 34 )", "walk", "run"], ["+ 7", "*", "x"])]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Valid plans whose texts the line format can write."""
    texts = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8, unique=True))
    for number in range(2, len(texts) + 1):
        if before := draw(st.integers(0, number - 1)):
            texts[number - 1] += f" #{before}"
    references = draw(st.lists(st.integers(1, len(texts)), min_size=1, max_size=6))
    return plan(*texts, answer=" ".join(f"#{n}" for n in references))


class TestLineFormat:
    @given(plans())
    def test_what_is_written_is_read_again(self, original: Plan) -> None:
        line = write_line(validate(original))
        if original.is_direct:
            assert line == "="
        else:
            assert read_whole_line(line) == original

    def test_examples(self) -> None:
        assert read_line("walk left ; run ; = #1 #1 #2") == (
            ("walk left", "run"),
            "#1 #1 #2",
            False,
        )
        assert read_whole_line("34 * 5 ; 12 + #1") == plan("34 * 5", "12 + #1")
        assert read_line("34 * 5 ...") == (("34 * 5",), None, True)
        assert read_line(" = ") == ((), None, False)
        assert write_line(plan("34 * 5", "12 + #1")) == "34 * 5 ; 12 + #1"
        assert write_line(plan("run", answer="#1 #1")) == "run ; = #1 #1"

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", PlanFault.EMPTY),
            (" \n", PlanFault.EMPTY),
            ("a ; = #1 ...", PlanFault.UNREADABLE),
            ("= #1 ; a", PlanFault.UNREADABLE),
            ("a = b ; c", PlanFault.UNREADABLE),
            ("x" * (4 * MAX_BYTES + 1), PlanFault.TOO_LARGE),
        ],
    )
    def test_what_cannot_be_read(self, text: str, fault: PlanFault) -> None:
        assert fault_of(lambda: read_line(text)) is fault

    def test_a_text_that_is_written_twice_is_one_subtask(self) -> None:
        assert read_whole_line("a ; b ; a ; c #3 ; = #3 #1 #4") == plan(
            "a", "b", "c #1", answer="#1 #1 #3"
        )
        assert read_whole_line("a ; a") == plan("a")

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("a ; a ; b #3 ; c", PlanFault.FORWARD),
            ("a ; a ; b #4 ; c ; d", PlanFault.FORWARD),
            ("a ; a ; b #4 ; c", PlanFault.DANGLING),
            ("a ; b #2", PlanFault.CYCLE),
            ("a ; a ; = #3", PlanFault.DANGLING),
            ("a ; a ; = #0", PlanFault.DANGLING),
        ],
    )
    def test_merging_makes_no_wrong_reference_right(self, text: str, fault: PlanFault) -> None:
        assert fault_of(lambda: validate(read_whole_line(text))) is fault

    def test_a_trailing_separator_is_a_blank_subtask(self) -> None:
        assert fault_of(lambda: validate(read_whole_line("a ; "))) is PlanFault.BLANK
        assert fault_of(lambda: validate(read_whole_line("="))) is PlanFault.EMPTY


class TestTakeStep:
    @pytest.mark.parametrize(
        ("query", "step", "number", "rest"),
        [
            ("12 + 34 * 5", "34 * 5", 1, "12 + #1"),
            ("12 + #1", "12 + #1", 2, "#2"),
            ("( 1 + 2 ) * ( 1 + 2 )", "( 1 + 2 )", 1, "#1 * ( 1 + 2 )"),
            ("34 * 5 + 4 * 5", "4 * 5", 1, "34 * 5 + #1"),
            ("#11 + #1 * 2", "#1 * 2", 3, "#11 + #3"),
        ],
    )
    def test_the_first_whole_occurrence_is_replaced(
        self, query: str, step: str, number: int, rest: str
    ) -> None:
        assert take_step(query, step, number) == rest

    @pytest.mark.parametrize("step", ["", "4 * 5", "34 * 50", "no part", "(", "#1", "34 * 5 "])
    def test_a_step_that_is_no_whole_span_is_refused(self, step: str) -> None:
        assert fault_of(lambda: take_step("34 * 51 + #12", step, 1)) is PlanFault.UNREADABLE

    @given(st.text(max_size=40), st.text(max_size=10))
    def test_any_step_of_any_query(self, query: str, step: str) -> None:
        try:
            rest = take_step(query, step, 7)
        except PlanError:
            return
        before, _, after = rest.partition("#7")
        assert f"{before}{step}{after}" == query or "#7" in query


class TestInContext:
    def test_references_are_followed_by_what_they_stand_for(self) -> None:
        chain = plan("27 + 64", "#1 + 58", "#2 * #1")
        assert in_context(chain, 1) == "27 + 64"
        assert in_context(chain, 2) == "# [ 27 + 64 ] + 58"
        assert in_context(chain, 3) == "# [ # [ 27 + 64 ] + 58 ] * # [ 27 + 64 ]"

    def test_references_to_references_cannot_explode(self) -> None:
        wide = [f"x {' '.join([f'#{n}'] * 300)}" for n in range(1, MAX_SUBTASKS)]
        with no_hang():
            assert len(in_context(plan("a", *wide), MAX_SUBTASKS)) <= MAX_CONTEXT


class TestExpand:
    def test_references_are_replaced_once(self) -> None:
        answers = {1: "#2", 2: "#1 and \\1", 12: "twelve"}
        assert expand("#1 #2 #12", answers) == "#2 #1 and \\1 twelve"

    @given(st.dictionaries(st.integers(1, 9), st.text(), min_size=1))
    def test_answers_stand_as_they_are(self, answers: dict[int, str]) -> None:
        template = "|".join(f"#{n}" for n in answers)
        assert expand(template, answers) == "|".join(answers.values())

    def test_references_to_references_cannot_fill_the_memory(self) -> None:
        answers = {1: "x" * 1000}
        wide = "#1 " * (MAX_EXPANDED // 1000 + 1)
        assert fault_of(lambda: expand(wide, answers)) is PlanFault.TOO_LARGE
        assert len(expand("#1 " * 100, answers)) == 100_100


class TestJson:
    @given(plans())
    def test_what_is_written_by_schema_is_read(self, original: Plan) -> None:
        document = {
            "subtasks": [{"text": s.text, "needs": list(s.needs)} for s in original.subtasks],
            "answer": original.answer,
        }
        assert validate(read_json(json.dumps(document))) == original

    @pytest.mark.parametrize(
        "text",
        [
            '{"subtasks": [{"text": "a"}, {"text": "b", "needs": [1]}], "answer": "#2"}',
            'Sure!\n```json\n{"subtasks": ["a", {"text": "b", "needs": [1]}]}\n```\nDone {really}.',
            '```\n{"subtasks": ["a", {"text": "b", "needs": [1]}], "answer": null}\n```',
            'The plan: {"subtasks": [{"text": "a"}, {"text": "b", "needs": [1]}], "answer": ""} ok',
        ],
    )
    def test_how_models_wrap_it(self, text: str) -> None:
        assert read_json(text) == Plan((Subtask("a"), Subtask("b", (1,))), "#2")

    def test_a_fence_inside_a_subtask_is_its_text(self) -> None:
        text = json.dumps({"subtasks": ["run ```print(1)``` now"], "answer": "#1"})
        assert read_json(text) == plan("run ```print(1)``` now")

    @pytest.mark.parametrize(
        "text",
        [
            "no JSON here",
            "{",
            "[1, 2]",
            '{"steps": []}',
            '{"subtasks": "a"}',
            '{"subtasks": [1]}',
            '{"subtasks": [{"text": 1, "needs": []}]}',
            '{"subtasks": [{"text": "a", "needs": "1"}]}',
            '{"subtasks": [{"text": "a", "needs": [true]}]}',
            '{"subtasks": [{"text": "a", "needs": [1.0]}]}',
        ],
    )
    def test_another_shape_is_unreadable(self, text: str) -> None:
        assert fault_of(lambda: read_json(text)) is PlanFault.UNREADABLE

    def test_an_answer_that_is_no_text(self) -> None:
        text = '{"subtasks": ["a"], "answer": ["#1"]}'
        assert fault_of(lambda: read_json(text)) is PlanFault.ANSWER

    @pytest.mark.parametrize("whole", [PLAN_SCHEMA, CONVERSATION_SCHEMA])
    def test_the_schema_is_one_that_strict_endpoints_take(self, whole: dict[str, Any]) -> None:
        for schema in (whole, whole["properties"]["subtasks"]["items"]):
            assert schema["additionalProperties"] is False
            assert set(schema["required"]) == set(schema["properties"])

    def test_only_a_plain_no_spares_a_subtask_the_conversation(self) -> None:
        for said, needs in ((False, False), (True, True), (None, True), ("false", True), (0, True)):
            step: dict[str, Any] = {"text": "a", "needs": [], "needs_conversation": said}
            (subtask,) = read_json(json.dumps({"subtasks": [step]})).subtasks
            assert subtask.needs_conversation is needs
        assert read_json('{"subtasks": ["a", {"text": "b"}]}').subtasks[1].needs_conversation


class TestProse:
    @pytest.mark.parametrize(
        "text",
        [
            "1. first\n2. second\n3. third",
            "Here is the plan:\n\n1) first\n2) second\n\n3) third",
            "Step 1: first\nStep 2: second\nStep 3: third",
            "**Step 1:** first\n**Step 2:** second\n**Step 3:** third",
            "### Step 1: first\n### Step 2: second\n### Step 3: third",
            '- **1.** "first"\n- **2.** "second"\n- **3.** "third"',
            "Sub-task 1. first\nsubtask 2. second\nQuestion 3: third",
            "#1. first\n#2. second\n#3. third",
        ],
    )
    def test_lists_as_models_number_them_are_chains(self, text: str) -> None:
        chain = (Subtask("first"), Subtask("second", (1,)), Subtask("third", (2,)))
        assert validate(read_prose(text)) == Plan(chain, "#3")

    def test_steps_that_name_others_need_those_only(self) -> None:
        read = read_prose("1. a\n2. b\n3. add the results of step 1 and subtask 2\n4. c of step 3")
        assert [s.needs for s in read.subtasks] == [(), (), (1, 2), (3,)]

    def test_lines_that_go_on_belong_to_their_step(self) -> None:
        read = read_prose("1. first\n   which is long\n\n7. not a step\n2. second")
        assert [s.text for s in read.subtasks] == ["first which is long 7. not a step", "second"]

    def test_a_reference_in_prose_is_text(self) -> None:
        assert read_prose("1. find item #1 of the list").subtasks[0].references == ()

    def test_a_text_without_steps(self) -> None:
        assert fault_of(lambda: read_prose("The answer is 4.")) is PlanFault.UNREADABLE

    def test_a_step_that_waits_for_a_later_one(self) -> None:
        late = read_prose("1. after step 2\n2. b")
        assert fault_of(lambda: validate(late)) is PlanFault.FORWARD


class TestGraph:
    def test_steps_are_put_in_an_order_that_edges_allow(self) -> None:
        read = read_graph(["c", "a", "b"], [(2, 3), (3, 1)])
        assert validate(read) == Plan((Subtask("a"), Subtask("b", (1,)), Subtask("c", (2,))), "#3")

    def test_the_answer_is_the_last_that_nothing_needs(self) -> None:
        assert read_graph(["a", "b", "c"], [(1, 2)]).answer == "#3"
        assert read_graph(["a", "b", "c"], [(3, 2)]).answer == "#3"

    @pytest.mark.parametrize(
        ("steps", "edges", "fault"),
        [
            (["a", "b"], [(1, 2), (2, 1)], PlanFault.CYCLE),
            (["a"], [(1, 1)], PlanFault.CYCLE),
            (["a"], [(1, 2)], PlanFault.DANGLING),
            ([], [], PlanFault.EMPTY),
            ([{"step": "a"}], [], PlanFault.UNREADABLE),
        ],
    )
    def test_what_is_no_graph(
        self, steps: list[Any], edges: list[tuple[int, int]], fault: PlanFault
    ) -> None:
        assert fault_of(lambda: read_graph(steps, edges)) is fault

    @given(
        st.integers(1, 9).flatmap(
            lambda n: st.tuples(
                st.just(n), st.lists(st.tuples(st.integers(1, n), st.integers(1, n)), max_size=12)
            )
        )
    )
    def test_an_order_is_found_where_there_is_one(
        self, drawn: tuple[int, list[tuple[int, int]]]
    ) -> None:
        count, edges = drawn
        steps = [f"s{n}" for n in range(1, count + 1)]
        try:
            read = validate(read_graph(steps, edges))
        except PlanError as error:
            cyclic = error.fault is PlanFault.CYCLE
            assert cyclic, error  # noqa: PT017
            return
        place = {s.text: i for i, s in enumerate(read.subtasks, 1)}
        assert sorted(place) == sorted(steps)
        for before, after in edges:
            assert place[f"s{before}"] in read.subtasks[place[f"s{after}"] - 1].needs


def test_messages_are_short_whatever_they_quote() -> None:
    for read, text in [(read_json, "{" + "x" * 9999), (read_prose, "x" * 9999)]:
        with pytest.raises(PlanError) as caught:
            read(text)
        assert len(str(caught.value)) < 200


class TestPlansOfRealModels:
    RECIPE = Path(__file__).parents[1] / "recipes" / "dot_plans.py"
    DATA = Path(__file__).parents[2] / "shared" / "data"

    def test_nearly_all_are_valid_and_the_rest_is_explained(self) -> None:
        if not (self.DATA / "dot_decompositions").is_dir():
            pytest.skip(f"no shared data at {self.DATA}")
        done = subprocess.run(
            [sys.executable, self.RECIPE, "--json"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        assert [r["rows"] for r in results] == [711, 711, 4581, 4581]
        for r in results:
            assert r["share"] > 0.93
            assert r["valid"] + sum(r["faults"].values()) == r["rows"]
            assert set(r["faults"]) == set(r["examples"]) <= set(PlanFault)

    def test_data_that_is_not_there(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, self.RECIPE, "--data", tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "name the folder of the data" in done.stderr
