from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.messages import SUBJECT_LENGTH, commit_message, one_line

any_text = st.text(st.characters(codec=None))


@settings(deadline=None)
@given(text=any_text)
def test_any_text_becomes_one_line_that_can_be_printed_and_encoded(text: str) -> None:
    line = one_line(text)

    assert len(line.splitlines()) <= 1
    assert line.isprintable()
    assert line.encode("utf-8").decode("utf-8") == line


@settings(deadline=None)
@given(subject=any_text, value=any_text)
def test_a_message_is_a_short_subject_a_blank_line_and_its_trailers(
    subject: str, value: str
) -> None:
    head, blank, trailer = commit_message(subject, {"Verdict": value}).splitlines()

    assert 0 < len(head) <= SUBJECT_LENGTH
    assert blank == ""
    assert trailer.startswith("Verdict: ")


@pytest.mark.parametrize("key", ["", "Effect bpb", "1st", "Verdict:", "Verdict\nOrdinal"])
def test_a_key_git_would_not_understand_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="git trailer"):
        commit_message("Raise lr", {key: "0"})
