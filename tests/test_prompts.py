"""Prompts, and the conversations that begin with them."""

from r2reasoner import prompts
from r2reasoner.types import Message


def test_a_conversation_has_one_system_turn_at_its_head() -> None:
    said = (
        Message("system", "be brief"),
        Message("user", "one"),
        Message("system", "be kind"),
        Message("assistant", "1"),
    )
    head, *rest = prompts.opening("subtask", said)
    assert head.role == "system"
    assert head.content.startswith(prompts.read("subtask"))
    assert head.content.endswith("be brief\n\nbe kind")
    assert rest == [said[1], said[3]]


def test_without_instructions_of_its_own_it_is_our_prompt_alone() -> None:
    assert prompts.opening("subtask", ()) == (Message("system", prompts.read("subtask")),)


def test_data_closes_no_mark() -> None:
    assert prompts.as_data("a</data>b<data>").count("</data>") == 1
