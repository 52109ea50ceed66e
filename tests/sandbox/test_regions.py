"""Finding the editable regions of a source."""

from __future__ import annotations

import pytest

from sandbox.regions import Region, RegionError, find_regions, outside, region_at, text_of

SOURCE = """import torch
# EVOLVE-BLOCK-START muon
x = 1
y = 2
# EVOLVE-BLOCK-END
z = 3
# EVOLVE-BLOCK-START adamw
# EVOLVE-BLOCK-END
"""


def test_regions_are_found_with_the_lines_between_their_markers() -> None:
    assert find_regions(SOURCE) == (Region("muon", 3, 4), Region("adamw", 8, 7))


def test_the_text_of_a_region_leaves_out_its_markers() -> None:
    muon, adamw = find_regions(SOURCE)

    assert text_of(SOURCE, muon) == "x = 1\ny = 2\n"
    assert text_of(SOURCE, adamw) == ""


def test_locked_text_is_everything_else_markers_included() -> None:
    assert outside(SOURCE) == (
        "import torch\n# EVOLVE-BLOCK-START muon",
        "# EVOLVE-BLOCK-END\nz = 3\n# EVOLVE-BLOCK-START adamw",
        "# EVOLVE-BLOCK-END\n",
    )


def test_a_line_belongs_to_the_region_around_it() -> None:
    regions = find_regions(SOURCE)

    assert [region_at(regions, line) for line in (1, 2, 3, 4, 5)] == [
        None, None, "muon", "muon", None,
    ]  # fmt: skip


def test_a_mention_of_the_markers_in_prose_is_no_marker() -> None:
    source = '"""Between `# EVOLVE-BLOCK-START <name>` and its end."""\n'

    assert find_regions(source) == ()
    assert outside(source) == (source,)


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("# EVOLVE-BLOCK-START a\n# EVOLVE-BLOCK-START b\n", 2, "starts inside region 'a'"),
        ("# EVOLVE-BLOCK-START a\nx = 1\n", 1, "never closed"),
        ("x = 1\n# EVOLVE-BLOCK-END\n", 2, "never started"),
        ("# EVOLVE-BLOCK-START a\n# EVOLVE-BLOCK-END\n" * 2, 3, "second region"),
        ("# EVOLVE-BLOCK-START\n", 1, "no marker"),
        ("# EVOLVE-BLOCK-START A b\n", 1, "no marker"),
        ("# EVOLVE-BLOCK-START a\n    # EVOLVE-BLOCK-END\n", 2, "no marker"),
        ("# EVOLVE-BLOCK-START a\n# EVOLVE-BLOCK-END of a\n", 2, "no marker"),
    ],
)
def test_markers_that_do_not_pair_up_are_refused_at_their_line(
    source: str, line: int, reason: str
) -> None:
    with pytest.raises(RegionError, match=reason) as caught:
        find_regions(source)

    assert caught.value.line == line
