from __future__ import annotations

import errno
import os
import sys

import pytest

from agent.output import OutputLostError, PipeConsole, printing, say
from tests.agent.fakes import FullStream


def test_a_full_disk_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", FullStream())

    with (
        pytest.raises(OutputLostError, match=r"No space left on device\): all is well"),
        printing("all is well"),
    ):
        PipeConsole().print("words")


def test_a_closed_pipe_is_said_to_be_one_and_fails_no_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    with open(writer, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(OutputLostError, match="Broken pipe"), printing("all is well"):
            PipeConsole().print("words")


def test_what_was_printed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with printing("all is well"):
        PipeConsole().print("words")

    assert capsys.readouterr().out == "words\n"


def test_a_sentence_for_a_lost_standard_error_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullStream())

    say("words")


def test_a_reader_that_has_seen_enough_is_no_error_where_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", FullStream())
    with printing("nothing was changed", silent_if_closed=True):
        _break_pipe()

    with (
        pytest.raises(OutputLostError, match="nothing was changed"),
        printing("nothing was changed"),
    ):
        _break_pipe()


def _break_pipe() -> None:
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")
