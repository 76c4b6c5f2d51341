import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.client.text import (
    SPECIAL,
    HuggingFaceCodec,
    WordCodec,
    join_words,
    open_codec,
    split_words,
)
from r2reasoner.errors import CallError, CallFault, ConfigError, UnknownWords
from r2reasoner.types import Message
from tokenizer_files import TEMPLATE, write_tokenizer

WORDS = ("walk", "left", "I_WALK", "#1", "#12", "...", ";", "=", "+", "(", ")", *"0123456789")
VOCABULARY = (*SPECIAL, *WORDS)


class TestWords:
    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("", []),
            ("walk  left\n", ["walk", "left"]),
            ("12+(3)", ["1", "2", "+", "(", "3", ")"]),
            ("walk ; = #12 #1", ["walk", ";", "=", "#12", "#1"]),
            ("walk ...", ["walk", "..."]),
            ("I_WALK", ["I_WALK"]),
        ],
    )
    def test_splitting(self, text: str, tokens: list[str]) -> None:
        assert split_words(text, VOCABULARY) == tokens

    def test_every_word_it_lacks_is_named(self) -> None:
        with pytest.raises(UnknownWords) as caught:
            split_words("capital of France? walk", VOCABULARY)
        assert caught.value.words == ("?", "France", "capital", "of")
        assert "'France'" in str(caught.value)

    @pytest.mark.parametrize("text", ["<pad>", "<sep> walk", "<unk>", "Walk", "walk2", "٣", "#13"])
    def test_special_tokens_and_lookalikes_are_no_words(self, text: str) -> None:
        with pytest.raises(UnknownWords):
            split_words(text, VOCABULARY)

    @given(st.text())
    def test_any_text_is_split_or_refused(self, text: str) -> None:
        try:
            tokens = split_words(text, VOCABULARY)
        except UnknownWords:
            return
        assert set(tokens) <= set(WORDS)
        assert "".join(tokens) == "".join(text.split())

    def test_a_huge_word_makes_no_huge_message(self) -> None:
        with pytest.raises(UnknownWords) as caught:
            split_words("x" * 100_000 + " " + " ".join(f"w{n}" for n in range(50)), VOCABULARY)
        assert len(str(caught.value)) < 400
        assert "43 more" in str(caught.value)

    def test_joining_makes_numbers_of_digits(self) -> None:
        assert join_words(["1", "2", "+", "3", "#1", "4"]) == "12 + 3 #1 4"

    @given(st.lists(st.sampled_from(["walk", "12", "+", "#1", ";", "...", "I_WALK"])))
    def test_joining_and_splitting_agree(self, parts: Sequence[str]) -> None:
        tokens = split_words(" ".join(parts), VOCABULARY)
        assert split_words(join_words(tokens), VOCABULARY) == tokens


class TestWordCodec:
    def test_the_last_user_turn_alone_is_asked(self) -> None:
        codec = WordCodec(VOCABULARY)
        messages = [
            Message("system", "words it does not know"),
            Message("user", "left"),
            Message("assistant", "nor these"),
            Message("user", "walk"),
        ]
        assert codec.prompt(messages) == ["<bos>", "walk", "<sep>"]

    def test_special_tokens_are_no_text(self) -> None:
        assert WordCodec(VOCABULARY).text(["<pad>", "1", "2", "<unk>", "<eos>"]) == "12"


class TestHuggingFace:
    def test_without_a_template_the_messages_are_one_text(self, tmp_path: Path) -> None:
        codec = open_codec(write_tokenizer(tmp_path, eos_token="<eos>"))
        assert isinstance(codec, HuggingFaceCodec)
        assert codec.end_token == "<eos>"
        assert codec.prompt([Message("user", "ab")]) == ["a", "b"]
        assert codec.text(["a", "b", "<eos>", "nothing of the kind"]) == "ab"

    @pytest.mark.parametrize("in_a_file", [False, True])
    def test_the_models_own_template(self, tmp_path: Path, in_a_file: bool) -> None:
        marks = {"bos_token": "<bos>", "eos_token": {"content": "<eos>"}}
        if in_a_file:
            write_tokenizer(tmp_path, **marks)
            (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
        else:
            write_tokenizer(tmp_path, chat_template=TEMPLATE, **marks)
        codec = open_codec(tmp_path)
        messages = [Message("system", "a"), Message("user", "b")]
        assert codec.prompt(messages) == ["<bos>", "a", "<eos>", "b", "<eos>"]

    def test_a_template_that_refuses_is_a_refused_input(self, tmp_path: Path) -> None:
        template = "{{ raise_exception('no system turn') }}"
        codec = open_codec(write_tokenizer(tmp_path, eos_token="<eos>", chat_template=template))
        with pytest.raises(CallError, match="no system turn") as caught:
            codec.prompt([Message("system", "a")])
        assert caught.value.fault is CallFault.REFUSED_INPUT

    @pytest.mark.parametrize(
        "template",
        [
            "{{ messages.__class__.__mro__ }}",
            "{{ ''.__class__.__subclasses__() }}",
            "{% for m in messages %}{{ m.update({'content': 'x'}) }}{% endfor %}",
        ],
    )
    def test_a_hostile_template_runs_nothing(self, tmp_path: Path, template: str) -> None:
        codec = open_codec(write_tokenizer(tmp_path, eos_token="<eos>", chat_template=template))
        try:
            assert not [t for t in codec.prompt([Message("user", "a")]) if t not in SPECIAL]
        except CallError as error:
            assert "refuses" in str(error)  # noqa: PT017

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({}, "eos_token"),
            ({"eos_token": None}, "eos_token"),
            ({"eos_token": "<eos>", "chat_template": "{% for %}"}, "chat template"),
            ({"eos_token": "<eos>", "chat_template": 7}, "chat template"),
        ],
    )
    def test_a_folder_that_lacks_something(
        self, tmp_path: Path, config: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            open_codec(write_tokenizer(tmp_path, **config))

    def test_a_template_without_jinja2(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = write_tokenizer(tmp_path, eos_token="<eos>", chat_template=TEMPLATE)
        monkeypatch.setitem(sys.modules, "jinja2.sandbox", None)
        with pytest.raises(ConfigError, match=r"pip install 'r2reasoner\[embedded\]'"):
            open_codec(folder)


class TestOpening:
    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({}, "codec.json or tokenizer.json"),
            ({"codec.json": "{"}, "codec.json cannot be read"),
            ({"codec.json": "[]"}, "expected a JSON object"),
            ({"codec.json": '{"codec": "morse"}'}, "codec.json or tokenizer.json"),
            ({"codec.json": '{"codec": "words"}'}, "vocabulary.json cannot be read"),
            (
                {"codec.json": '{"codec": "words"}', "vocabulary.json": '{"a": 1}'},
                "expected a JSON list",
            ),
            ({"tokenizer.json": "no tokenizer"}, "tokenizer.json cannot be read"),
        ],
    )
    def test_a_folder_that_is_none(self, tmp_path: Path, files: dict[str, str], said: str) -> None:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=said) as caught:
            open_codec(tmp_path)
        assert str(tmp_path) in str(caught.value)
