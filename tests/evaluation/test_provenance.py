import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import toy_pool
from r2reasoner.evaluation.provenance import commit, pool_digest, provenance
from r2reasoner.pool.cards import Price

POOL = toy_pool.pool("http://127.0.0.1:1/v1")


def test_a_pool_is_the_same_wherever_its_files_lie_and_another_when_it_answers_otherwise(
    tmp_path: Path,
) -> None:
    small, *rest = POOL.workers
    dearer = replace(small, price=Price(Decimal(3), Decimal(3)))
    outcomes = tmp_path / "outcomes.npz"
    outcomes.write_bytes(b"measured")
    others = [
        replace(POOL, workers=(dearer, *rest)),
        replace(POOL, workers=tuple(rest)),
        replace(POOL, workers=(replace(small, model="other"), *rest)),
        replace(POOL, policies={}),
        replace(POOL, outcomes=outcomes),
    ]
    digests = [pool_digest(pool) for pool in (POOL, *others)]
    assert len(set(digests)) == len(digests)
    assert pool_digest(replace(POOL, source=tmp_path)) == digests[0]
    outcomes.write_bytes(b"measured again")
    assert pool_digest(others[-1]) != digests[-1]


def test_the_weights_of_a_model_in_process_count_though_the_pool_file_has_no_checksum(
    tmp_path: Path,
) -> None:
    small, *rest = POOL.workers
    folder = tmp_path / "small"
    folder.mkdir()
    for name in ("model.bin", "vocabulary.json", "config.json"):
        (folder / name).write_bytes(b"1")
    endpoint = replace(small.endpoint, kind="embedded", path=tmp_path)
    pool = replace(POOL, workers=(replace(small, endpoint=endpoint), *rest))
    before = pool_digest(pool)
    assert list(provenance(pool, 0)["weights"]) == ["small"]
    (folder / "model.bin").write_bytes(b"2")
    assert pool_digest(pool) != before
    (folder / "model.bin").unlink()
    assert provenance(pool, 0)["weights"] == {}


def test_a_figure_can_be_traced_to_its_origin() -> None:
    origin = provenance(POOL, 7, ["/usr/bin/r2reasoner", "evaluate", "my items.jsonl"])
    assert origin["command"] == "r2reasoner evaluate 'my items.jsonl'"
    assert (origin["seed"], origin["pool"]["name"]) == (7, "toy")
    assert origin["versions"]["numpy"]
    assert json.loads(json.dumps(origin)) == origin
    assert re.fullmatch(r"[0-9a-f]{40}\+?", commit() or "0" * 40)
