"""Applying, making and storing search/replace patches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.patches import (
    Block,
    BlockMatchError,
    Patch,
    PatchError,
    apply_patch,
    from_blocks,
    from_json,
    make_patch,
    to_blocks,
    to_json,
    unified_diff,
)

# Few distinct lines, so that repeated ones are the rule.
TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "aa\n", "\n", "c\r\n", "x = 1\n", "d"])).map(
    "".join
)


@given(old=TEXTS, new=TEXTS)
def test_a_made_patch_turns_the_old_text_into_the_new(old: str, new: str) -> None:
    assert apply_patch(make_patch(old, new), old) == new


@given(old=st.text(), new=st.text())
def test_a_made_patch_works_on_any_text(old: str, new: str) -> None:
    assert apply_patch(make_patch(old, new), old) == new


@given(old=TEXTS, new=TEXTS)
def test_a_patch_survives_json(old: str, new: str) -> None:
    patch = make_patch(old, new)

    assert from_json(to_json(patch)) == patch


@given(lines=st.lists(st.uuids().map(str), min_size=1, unique=True), pick=st.data())
def test_replacing_a_line_and_replacing_it_back_restores_the_source(
    lines: list[str], pick: st.DataObject
) -> None:
    source = "\n".join(lines)
    old = pick.draw(st.sampled_from(lines))

    patched = apply_patch(Patch((Block(search=old, replace="new"),)), source)

    assert apply_patch(Patch((Block(search="new", replace=old),)), patched) == source


@pytest.mark.parametrize(
    ("search", "matches"),
    [("beta", 0), ("lr = 0.1\n", 2), ("", 19), ("lr = 0.1\nlr = 0.1\n ", 0)],
)
def test_a_search_text_that_does_not_occur_once_is_refused_with_its_count(
    search: str, matches: int
) -> None:
    source = "lr = 0.1\nlr = 0.1\n"
    good = Block(search="lr = 0.1\nlr", replace="lr")

    with pytest.raises(BlockMatchError) as caught:
        apply_patch(Patch((good, Block(search=search, replace="x"))), source)

    assert (caught.value.index, caught.value.matches) == (1, matches)


def test_overlapping_occurrences_count_as_several() -> None:
    with pytest.raises(BlockMatchError) as caught:
        apply_patch(Patch((Block(search="aa", replace="b"),)), "aaa")

    assert caught.value.matches == 2


def test_blocks_refer_to_the_original_text_whatever_their_order() -> None:
    source = "a = 1\nb = 2\n"
    first = Block(search="a = 1", replace="b = 2")
    second = Block(search="b = 2", replace="c = 3")

    assert apply_patch(Patch((first, second)), source) == "b = 2\nc = 3\n"
    assert apply_patch(Patch((second, first)), source) == "b = 2\nc = 3\n"


def test_blocks_that_quote_the_same_text_are_refused() -> None:
    blocks = (Block(search="ab", replace="x"), Block(search="bc", replace="y"))

    with pytest.raises(PatchError, match="another block"):
        apply_patch(Patch(blocks), "abc")


def test_blocks_that_touch_are_applied_both() -> None:
    blocks = (Block(search="ab", replace="x"), Block(search="cd", replace="y"))

    assert apply_patch(Patch(blocks), "abcd") == "xy"


def test_an_empty_patch_changes_nothing() -> None:
    assert apply_patch(Patch(()), "a\n") == "a\n"


def test_one_changed_line_makes_one_block_of_one_line() -> None:
    old = "".join(f"x{i} = {i}\n" for i in range(100))

    patch = make_patch(old, old.replace("x42 = 42\n", "x42 = 7\n"))

    assert patch == Patch((Block(search="x42 = 42\n", replace="x42 = 7\n"),))


def test_a_repeated_line_is_quoted_with_what_makes_it_unique() -> None:
    old = "def f():\n    return 1\n\n\ndef g():\n    return 1\n"

    [block] = make_patch(old, "def f():\n    return 1\n\n\ndef g():\n    return 2\n").blocks

    assert block == Block(search="def g():\n    return 1\n", replace="def g():\n    return 2\n")


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", '["a"]', '[{"search": "a"}]', '[{"search": 1, "replace": "b"}]', "[" * 9999],
)
def test_json_that_is_no_patch_is_refused(text: str) -> None:
    with pytest.raises(PatchError, match="expected"):
        from_json(text)


LINES = st.lists(st.sampled_from(["a\n", "b\n", "\n", "  c\n"]), max_size=5).map("".join)


@given(st.lists(st.builds(Block, LINES, LINES), min_size=1, max_size=4).map(tuple).map(Patch))
def test_blocks_of_whole_lines_survive_being_written_for_people(patch: Patch) -> None:
    assert from_blocks(to_blocks(patch)) == patch


def test_text_around_the_blocks_is_skipped() -> None:
    text = "A title.\n\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n\nThe end.\n"

    assert from_blocks(text) == Patch((Block("a\n", "b\n"),))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no block"),
        ("a\n=======\nb\n", "there is no block"),
        ("<<<<<<< SEARCH\na\n", "not closed"),
        ("<<<<<<< SEARCH\na\n=======\nb\n", "not closed"),
        ("<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n", "line 3 of the patch"),
        ("<<<<<<< SEARCH\n<<<<<<< SEARCH\n", "line 2 of the patch"),
        (">>>>>>> REPLACE\n", "line 1 of the patch"),
    ],
)
def test_blocks_that_are_not_whole_are_refused(text: str, reason: str) -> None:
    with pytest.raises(PatchError, match=reason):
        from_blocks(text)


def test_a_search_text_that_is_not_there_is_quoted_by_its_first_strange_line() -> None:
    with pytest.raises(BlockMatchError, match=r"has no line `lr = 0\.3\ufffd`"):
        apply_patch(Patch((Block("# rates\n  lr = 0.3\x1b\n", ""),)), "# rates\nlr = 0.1\n")


def test_a_diff_shows_what_changed_and_equal_texts_have_none() -> None:
    assert "-a\n+b" in unified_diff("a\n", "b\n")
    assert unified_diff("a\n", "a\n") == ""
