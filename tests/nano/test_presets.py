from r2reasoner.nano.items import weight_set
from r2reasoner.nano.presets import FULL, SCAN_ONLY, TINY, Shape, preset_for


def test_the_full_preset_has_the_nine_sizes() -> None:
    names = [shape.name for shape in sorted(FULL.workers)]
    assert names == ["8x1", "16x1", "16x2", "24x2", "32x2", "48x2", "64x2", "96x3", "128x4"]
    assert list(SCAN_ONLY.workers) == list(FULL.workers)


def test_a_weight_set_has_its_preset() -> None:
    assert preset_for("full", weight_set("length")) is FULL
    assert preset_for("full", weight_set("addprim_jump")) is SCAN_ONLY
    assert preset_for("tiny", weight_set("length")) is TINY
    assert preset_for("tiny", weight_set("addprim_jump")) is TINY


def test_a_shape_is_named_by_width_and_layers() -> None:
    assert Shape(48, 2).name == "48x2"
