import pickle
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.client.secret import STARS, Secret
from r2reasoner.errors import ConfigError

KEY = "sk-canary/41+7d=XyZ"
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=80)


def test_it_prints_as_stars() -> None:
    secret = Secret(KEY)
    for text in (str(secret), repr(secret), f"{secret}", f"{[secret]!r}"):
        assert KEY not in text
        assert STARS in text


def test_it_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not written"):
        pickle.dumps(Secret(KEY))


@given(keys, st.text(), st.text())
def test_redaction_leaves_no_form_of_the_key(key: str, before: str, after: str) -> None:
    forms = (key, quote(key, safe=""), b64encode(key.encode()).decode())
    for form in forms:
        assert form not in Secret(key).redact(before + form + after)


@pytest.mark.parametrize("length", range(4, len(KEY) + 1))
def test_a_key_cut_at_the_end_of_a_text_is_redacted(length: int) -> None:
    assert Secret(KEY).redact("the key was " + KEY[:length]) == f"the key was {STARS}"


def test_other_text_is_left_alone() -> None:
    assert Secret(KEY).redact("Incorrect API key; ask for another") == (
        "Incorrect API key; ask for another"
    )


def test_it_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2_TEST_KEY", f" {KEY}\n")
    assert Secret.from_environment("R2_TEST_KEY", needed_by="x").reveal() == KEY


@pytest.mark.parametrize("value", [None, "", "  \n", "a\nb", "schlüssel"])
def test_a_missing_or_odd_key_is_a_config_error_naming_the_variable(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("R2_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("R2_TEST_KEY", value)
    with pytest.raises(ConfigError, match="R2_TEST_KEY") as raised:
        Secret.from_environment("R2_TEST_KEY", needed_by="endpoint 'e'")
    assert value is None or not value.strip() or value not in str(raised.value)
