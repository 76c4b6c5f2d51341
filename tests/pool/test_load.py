import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Group, Pool
from r2reasoner.pool.load import PACKAGE, find_pool, load_card, load_pool, shipped

GOOD = """\
[pool]
name = "mine"
decomposer = "planner"
allocator = "calibrated"
outcomes = "measured/outcomes.jsonl"

[endpoints.vllm]
base_url = "http://localhost:8000/v1/"
key_env = "VLLM_KEY"
concurrency = 4
read_timeout_s = 30

[endpoints.here]
kind = "embedded"
path = "weights"

[[workers]]
name = "tiny"
group = "small"
endpoint = "here"
model = "workers/8x1"
input_price = 0.000537
output_price = "0.000537"
context = 64
prompt = "plain"
parameters = 537
sha256 = "SHA"

[[workers]]
name = "big"
endpoint = "vllm"
model = "Qwen/Qwen2.5-7B-Instruct"
input_price = 1
output_price = 2
cached_price = 0.1
price_source = "my invoice"
max_tokens = 2048
concurrency = 2
capabilities = ["json"]

[[policies]]
name = "planner"
endpoint = "here"
model = "planner"
plan_format = "line"

[router]
trade_off = 0.5
""".replace("SHA", "ab" * 32)


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(text)
    return file


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_pool(write(folder, text))
    assert str(caught.value).startswith(f"{folder / 'mine.toml'}: ")
    return str(caught.value)


def test_an_allocator_may_be_a_light_router(tmp_path: Path) -> None:
    light = GOOD.replace('allocator = "calibrated"', 'allocator = "light:blend"')
    assert load_pool(write(tmp_path, light)).allocator == "light:blend"


def test_a_whole_file_becomes_cards(tmp_path: Path) -> None:
    pool = load_pool(write(tmp_path, GOOD))
    tiny, big = pool.workers
    assert (pool.name, pool.decomposer, pool.allocator) == ("mine", "planner", "calibrated")
    assert pool.source == tmp_path / "mine.toml"
    assert (tiny.group, tiny.prompt, tiny.parameters) == (Group.SMALL, "plain", 537)
    assert tiny.sha256 == "ab" * 32
    assert tiny.endpoint.kind == "embedded"
    assert big.endpoint.base_url == "http://localhost:8000/v1"
    assert (big.endpoint.key_env, big.endpoint.concurrency) == ("VLLM_KEY", 4)
    assert (big.endpoint.connect_timeout_s, big.endpoint.read_timeout_s) == (10.0, 30.0)
    assert (big.max_tokens, big.concurrency, big.context) == (2048, 2, 32_768)
    assert big.capabilities == {"json"}
    assert pool.policies["planner"].plan_format == "line"


def test_prices_stay_exact_and_say_where_they_come_from(tmp_path: Path) -> None:
    tiny, big = load_pool(write(tmp_path, GOOD)).workers
    assert tiny.price is not None
    assert big.price is not None
    assert (tiny.price.input, tiny.price.output) == (Decimal("0.000537"), Decimal("0.000537"))
    assert (big.price.input, big.price.cached) == (Decimal(1), Decimal("0.1"))
    assert (tiny.price.source, big.price.source) == ("pool file", "pool file: my invoice")


@given(st.decimals(min_value=0, max_value=1_000_000, places=12))
def test_a_price_written_as_a_toml_float_is_that_decimal(
    tmp_path_factory: pytest.TempPathFactory, price: Decimal
) -> None:
    folder = tmp_path_factory.mktemp("pool")
    text = GOOD.replace("input_price = 1\n", f"input_price = {price:f}\n")
    pool = load_pool(write(folder, text.replace("cached_price = 0.1\n", "")))
    assert pool.workers[1].price is not None
    assert pool.workers[1].price.input == price


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pool = load_pool("../mine.toml")
    assert pool.workers[0].endpoint.path == tmp_path / "weights"
    assert pool.outcomes == tmp_path / "measured" / "outcomes.jsonl"


def test_absolute_paths_stay(tmp_path: Path) -> None:
    text = GOOD.replace('path = "weights"', 'path = "/srv/weights"')
    assert load_pool(write(tmp_path, text)).workers[0].endpoint.path == Path("/srv/weights")


def test_the_default_answer_length_fits_a_small_context(tmp_path: Path) -> None:
    assert load_pool(write(tmp_path, GOOD)).workers[0].max_tokens == 64


def test_without_a_price_a_hosted_model_takes_its_list_price_and_a_local_one_none(
    tmp_path: Path,
) -> None:
    text = GOOD.replace('input_price = 0.000537\noutput_price = "0.000537"\n', "")
    text = text.replace("input_price = 1\noutput_price = 2\ncached_price = 0.1\n", "")
    text = text.replace('price_source = "my invoice"\n', "")
    tiny, big = load_pool(write(tmp_path, text)).workers
    assert tiny.price is None
    assert big.price is None
    hosted = text.replace("http://localhost:8000/v1/", "https://api.openai.com/v1")
    hosted = hosted.replace("Qwen/Qwen2.5-7B-Instruct", "gpt-4o")
    price = load_pool(write(tmp_path, hosted)).workers[1].price
    assert price is not None
    assert price.source.startswith("genai-prices ")


def test_a_price_of_zero_is_free_and_not_unknown(tmp_path: Path) -> None:
    text = GOOD.replace("input_price = 1\noutput_price = 2\ncached_price = 0.1\n", "")
    text = text.replace(
        'price_source = "my', 'input_price = 0\noutput_price = "0"\nprice_source = "my'
    )
    price = load_pool(write(tmp_path, text)).workers[1].price
    assert price is not None
    assert (price.input, price.output) == (Decimal(0), Decimal(0))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('group = "small"', 'grop = "small"', ["workers 1 (tiny): grop: unknown key", "'group'?"]),
        ('group = "small"', 'group = "smal"', ["workers 1 (tiny): group: expected 'small'"]),
        ("concurrency = 4", "concurency = 4", ["endpoints.vllm.concurency", "'concurrency'?"]),
        ('name = "mine"', 'name = "mine"\nowner = "me"', ["pool.owner: unknown key; known: all"]),
        ("[router]", "[rooter]", ["rooter: unknown key; did you mean 'router'?"]),
        ("trade_off = 0.5", "trade_off = 2", ["[router] trade_off: expected a number from 0"]),
        ("trade_off = 0.5", "trade = 0.5", ["[router] trade: unknown key"]),
        ('decomposer = "planner"\n', "", ["pool.decomposer: missing"]),
        ('allocator = "calibrated"\n', "", ["pool.allocator: missing"]),
        (
            'decomposer = "planner"',
            'decomposer = "planer"',
            ["pool.decomposer: no worker or policy 'planer'; did you mean 'planner'?"],
        ),
        (
            'allocator = "calibrated"',
            'allocator = "calibrate"',
            ["pool.allocator: 'calibrate' is neither", "did you mean 'calibrated'?"],
        ),
        ('name = "big"', 'name = "tiny"', ["workers 2 (tiny): name 'tiny' is taken"]),
        ('name = "big"', 'name = "planner"', ["policies 1 (planner): name 'planner' is taken"]),
        ('name = "big"', 'name = "ladder"', ["workers 2 (ladder): ", "built-in allocator"]),
        ('name = "big"', 'name = "b\\u0007g"', ["expected one line of text"]),
        (
            'endpoint = "vllm"',
            'endpoint = "vlm"',
            ["workers 2 (big): no [endpoints.vlm] in this file; did you mean 'vllm'?"],
        ),
        ('endpoint = "vllm"\n', "", ["workers 2 (big): endpoint: missing"]),
        ("input_price = 1\n", "input_price = -1\n", ["workers 2 (big): input_price: ", "0"]),
        ("input_price = 1\n", "", ["workers 2 (big): input_price and output_price go together"]),
        ("input_price = 1\n", "input_price = nan\n", ["workers 2 (big): input_price: "]),
        ("input_price = 1\n", "input_price = inf\n", ["workers 2 (big): input_price: "]),
        ("input_price = 1\n", "input_price = 1e99\n", ["workers 2 (big): input_price: "]),
        ("input_price = 1\n", "input_price = true\n", ["expected a number, got true or false"]),
        ("input_price = 1\n", 'input_price = "a"\n', ["workers 2 (big): input_price: "]),
        ("cached_price = 0.1", "cached_price = 1.1", ["cached_price is above input_price"]),
        ("context = 64", "context = 0", ["workers 1 (tiny): context: "]),
        ("context = 64", "context = 64\nmax_tokens = 65", ["max_tokens 65 is above context 64"]),
        ("read_timeout_s = 30", "read_timeout_s = 0", ["endpoints.vllm.read_timeout_s: "]),
        ("http://localhost:8000/v1/", "localhost:8000", ["expected a URL like https://"]),
        ("http://localhost:8000/v1/", "file:///etc/passwd", ["expected a URL like https://"]),
        ("http://localhost:8000/v1/", "http://localhost:x/v1", ["expected a URL like https://"]),
        ("http://localhost:8000/v1/", "http://[::1/v1", ["expected a URL like https://"]),
        ("http://localhost:8000/v1/", "https://h/v1?key=1", ["without user, password, query"]),
        ('kind = "embedded"\npath = "weights"', "", ["endpoints.here: missing base_url"]),
        ('path = "weights"', "", ["endpoints.here: missing path"]),
        ('path = "weights"', 'path = "w"\nkey_env = "K"', ["belong to an openai endpoint only"]),
        ('key_env = "VLLM_KEY"', 'path = "w"', ["path belongs to an embedded endpoint only"]),
        ('"workers/8x1"', '"../workers"', ["workers 1 (tiny): model: expected a folder inside"]),
        ('"workers/8x1"', '"/workers"', ["workers 1 (tiny): model: expected a folder inside"]),
        ("ab" * 32, "ab" * 31, ["workers 1 (tiny): sha256: "]),
        ('price_source = "my invoice"', f'sha256 = "{"0" * 64}"', ["sha256 belongs to models of"]),
        ("[[policies]]", "[policies]", ["policies: "]),
        ("[pool]", "[pool", ["not valid TOML", "line 1"]),
    ],
)
def test_mistakes_are_refused_by_file_and_key(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    assert GOOD.count(old) >= 1
    message = refused(tmp_path, GOOD.replace(old, new, 1))
    for text in expected:
        assert text in message


def test_no_workers_or_no_pool_table_is_refused(tmp_path: Path) -> None:
    assert "pool: missing" in refused(tmp_path, "")
    assert "workers: " in refused(tmp_path, 'workers = []\n[pool]\nname = "x"')


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD.replace("group", "grop").replace("context", "contxt"))
    assert "2 problems" in message
    assert "'group'?" in message
    assert "'context'?" in message


@pytest.mark.parametrize("line", ['api_key = "{}"', 'key_env = "{}"', 'base_url = "http://{}@h/"'])
def test_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, line: str) -> None:
    secret = "sk-canary-4242"
    text = GOOD.replace('key_env = "VLLM_KEY"\n', "")
    if line.startswith("base_url"):
        text = text.replace('base_url = "http://localhost:8000/v1/"', line.format(secret))
    else:
        text = text.replace("[endpoints.vllm]", f"[endpoints.vllm]\n{line.format(secret)}")
    assert secret not in refused(tmp_path, text)


def test_shipped_pools_load_by_name_and_their_paths_start_at_the_package() -> None:
    for name in shipped():
        pool = load_pool(name)
        assert pool.name == name
        for card in (*pool.workers, *pool.policies.values()):
            if card.endpoint.path is not None:
                assert card.endpoint.path.is_relative_to(PACKAGE)


def test_the_paper_pool_is_the_nine_of_the_paper() -> None:
    pool = load_pool("paper")
    groups = [card.group for card in pool.workers]
    assert groups == [Group.SMALL] * 3 + [Group.MEDIUM] * 3 + [Group.LARGE] * 3
    assert [card.name for card in pool.workers] == [
        *(f"Qwen2.5-{size}-Instruct" for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")),
        "DeepSeek-V3",
        "gpt-4o",
    ]
    for card in pool.workers[-2:]:
        assert card.price is not None
        assert card.price.source.startswith("genai-prices ")


def test_a_copied_paper_pool_loads_from_anywhere(tmp_path: Path) -> None:
    copy = write(tmp_path, find_pool("paper").read_text())
    assert load_pool(copy).workers == load_pool("paper").workers


def test_the_environment_names_the_default_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, GOOD)
    monkeypatch.setenv("R2REASONER_POOL", str(file))
    assert load_pool().name == "mine"
    assert load_pool("paper").name == "paper"


def test_a_file_in_the_working_folder_is_not_taken_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, GOOD).rename(tmp_path / "r2.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R2REASONER_POOL", "paper")
    assert load_pool().name == "paper"


def test_an_unknown_pool_is_refused_with_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"no pool 'papre': .* did you mean 'paper'"):
        load_pool("papre")


LINES = GOOD.splitlines()


def loads_or_is_refused_by_name(file: Path) -> bool:
    try:
        pool = load_pool(file)
    except ConfigError as error:
        return str(error).startswith(f"{file}: ")
    return pool.card(pool.decomposer) in (*pool.workers, *pool.policies.values())


@given(st.data())
def test_damaged_files_are_a_pool_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(range(len(LINES))), unique=True).map(sorted))
    file = tmp_path_factory.mktemp("pool") / "mine.toml"
    file.write_text("\n".join(LINES[i] for i in kept))
    assert loads_or_is_refused_by_name(file)


@given(
    st.recursive(
        st.integers() | st.booleans() | st.text(max_size=3).map(lambda s: s.strip()),
        lambda inner: st.lists(inner, max_size=2),
        max_leaves=4,
    ),
    st.sampled_from([line.split(" = ")[0] for line in LINES if " = " in line]),
)
def test_any_value_under_any_key_is_a_pool_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, value: Any, key: str
) -> None:
    def toml(v: Any) -> str:
        if isinstance(v, list):
            return "[" + ", ".join(map(toml, v)) + "]"
        if isinstance(v, bool):
            return str(v).lower()
        return str(v) if isinstance(v, int) else '"' + "".join(f"\\U{ord(c):08x}" for c in v) + '"'

    text = "\n".join(
        f"{key} = {toml(value)}" if line.split(" = ")[0] == key else line for line in LINES
    )
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    file = tmp_path_factory.mktemp("pool") / "mine.toml"
    file.write_text(text)
    assert loads_or_is_refused_by_name(file)


class TestCard:
    """A file with one worker that is to join a pool."""

    CARD = (
        '[endpoints.other]\nbase_url = "http://localhost:9/v1"\n'
        '[[workers]]\nname = "new"\nendpoint = "other"\nmodel = "m"\ninput_price = "1"\n'
        'output_price = "2"\n'
    )

    @pytest.fixture
    def pool(self, tmp_path: Path) -> Pool:
        (tmp_path / "pool.toml").write_text(GOOD.replace("SHA", "0" * 64))
        return load_pool(tmp_path / "pool.toml")

    def load(self, folder: Path, pool: Pool, text: str) -> Card:
        (folder / "card.toml").write_text(text)
        return load_card(folder / "card.toml", pool)

    def test_with_an_endpoint_of_its_own(self, tmp_path: Path, pool: Pool) -> None:
        card = self.load(tmp_path, pool, self.CARD)
        assert (card.name, card.endpoint.base_url) == ("new", "http://localhost:9/v1")
        assert card.price is not None
        assert card.price.output == 2

    def test_with_an_endpoint_of_the_pool(self, tmp_path: Path, pool: Pool) -> None:
        card = self.load(
            tmp_path, pool, '[[workers]]\nname = "new"\nendpoint = "here"\nmodel = "workers/x"\n'
        )
        assert card.endpoint == pool.card("tiny").endpoint

    def test_paths_are_taken_from_its_own_folder(self, tmp_path: Path, pool: Pool) -> None:
        own = tmp_path / "elsewhere"
        own.mkdir()
        text = '[endpoints.mine]\nkind = "embedded"\npath = "w"\n[[workers]]\nname = "new"\n'
        card = self.load(own, pool, text + 'endpoint = "mine"\nmodel = "x"\n')
        assert card.endpoint.path == own / "w"

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ('name = "new"', 'name = "big"', "pool 'mine' has a model of that name"),
            ('name = "new"', 'name = "planner"', "pool 'mine' has a model of that name"),
            ('name = "new"', 'name = "ladder"', "the name of a built-in allocator"),
            ('endpoint = "other"', 'endpoint = "vllm"', "endpoints.other: 'new' does not use it"),
            (
                'endpoint = "other"',
                'endpoint = "nowhere"',
                "no [endpoints.nowhere] in this file or",
            ),
            ("[endpoints.other]", "[endpoints.vllm]", "endpoints.vllm: pool 'mine' has another"),
            ('model = "m"', "", "workers 1 (new): model: missing"),
            ('model = "m"', 'model = "m"\nsha256 = "x"', "sha256"),
            ('model = "m"', 'model = "m"\napi_key = "s3cret"', "keys never stand in a pool file"),
            ("[[workers]]", "[[policies]]", "workers: missing"),
            ("[endpoints.other]", "[router]\n[endpoints.other]", "router: unknown key"),
            ("[endpoints.other]", "[pool]\n[endpoints.other]", "a whole pool file"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, tmp_path: Path, pool: Pool, old: str, new: str, says: str
    ) -> None:
        with pytest.raises(ConfigError, match=re.escape(says)) as caught:
            self.load(tmp_path, pool, self.CARD.replace(old, new, 1))
        assert str(caught.value).startswith(str(tmp_path / "card.toml"))
        assert "s3cret" not in str(caught.value)

    def test_two_workers_or_none(self, tmp_path: Path, pool: Pool) -> None:
        twice = self.CARD + '[[workers]]\nname = "b"\nendpoint = "other"\nmodel = "m"\n'
        with pytest.raises(ConfigError, match="workers: list should have at most 1 item"):
            self.load(tmp_path, pool, twice)
        with pytest.raises(ConfigError, match="workers: missing"):
            self.load(tmp_path, pool, "")

    def test_no_file(self, tmp_path: Path, pool: Pool) -> None:
        with pytest.raises(ConfigError, match=r"card\.toml: no such file"):
            load_card(tmp_path / "card.toml", pool)
