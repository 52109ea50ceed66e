from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import select
import signal
import textwrap
import threading

import pytest
import torch

from sandbox.jail_process import JailFailure, SandboxFailure
from sandbox.jobs import Status
from sandbox.zygote_process import Zygote
from tests.sandbox.jails import LIMITS, Rig, jailed, optimizer_file


def test_an_honest_step_updates_the_shared_parameters(zygote: Zygote) -> None:
    with jailed(zygote, optimizer_file("pass")) as rig:
        rig.optimizer.build()
        rig.params.fill_(1.0)
        rig.grads.fill_(2.0)

        rig.step()

        assert torch.equal(rig.params, torch.zeros_like(rig.params))


def test_the_training_state_arrives_as_it_was_sent(zygote: Zygote) -> None:
    source = optimizer_file("print(self.seen)")
    with jailed(zygote, source) as rig:
        rig.optimizer.build()
        rig.step(number=7)
        rig.optimizer.end()

        assert (
            "TrainingState(step=7, total_steps=10, loss=2.0, tokens=64)"
            in rig.optimizer.output_tail
        )


@pytest.mark.parametrize(
    ("step", "status", "words"),
    [
        ("raise ValueError('no')", Status.CRASH, "line 9 in step: ValueError: no"),
        ("while True: pass", Status.TIMEOUT_CPU, "1.00 s of CPU"),
        ("torch.zeros(10**11)", Status.OOM, "line 9"),
        ("bytearray(10**11)", Status.OOM, "MemoryError"),
        ("open('/etc/hostname')", Status.POLICY_VIOLATION, "/etc/hostname"),
        ("import os; os.fork()", Status.POLICY_VIOLATION, "a thread or a process (clone)"),
        ("import os; os.execv('/bin/true', ['true'])", Status.POLICY_VIOLATION, "(execve)"),
        ("import socket; socket.socket()", Status.POLICY_VIOLATION, "connection (socket)"),
        ("import os; os.kill(os.getppid(), 9)", Status.POLICY_VIOLATION, "(kill)"),
        ("open('/x', 'w')", Status.POLICY_VIOLATION, "a file to write, create or change (openat)"),
        ("print('x' * 2_000_000)", Status.OUTPUT_LIMIT, "1048576"),
        ("import os; os._exit(0)", Status.PROTOCOL_ERROR, "exit code 0"),
        ("import ctypes; ctypes.string_at(0)", Status.CRASH, "SIGSEGV"),
        ("raise SystemExit(0)", Status.CRASH, "SystemExit"),
        (
            "import threading; threading.Thread(target=print).start()",
            Status.POLICY_VIOLATION,
            "can't start new thread; it asked the kernel for a thread or a process (clone)",
        ),
    ],
)
def test_a_failing_candidate_gets_its_verdict_and_a_reason(
    zygote: Zygote, step: str, status: Status, words: str
) -> None:
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            rig.step()

        assert caught.value.status is status
        assert words in caught.value.reason


def test_a_forbidden_call_whose_refusal_is_hidden_is_a_violation_all_the_same(
    zygote: Zygote,
) -> None:
    step = """
    import os, socket
    for attempt in (socket.socket, os.fork):
        try:
            attempt()
        except OSError:
            pass
    """
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            rig.step()

    assert caught.value.status is Status.POLICY_VIOLATION
    assert "a network connection (socket) and a thread or a process (clone)" in caught.value.reason
    assert "hid the refusal" in caught.value.reason


def test_looking_around_is_refused_and_no_violation(zygote: Zygote) -> None:
    step = """
    import os
    try:
        os.stat("/etc")
    except PermissionError as error:
        print(error)
    """
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()
        rig.step()
        rig.optimizer.end()

        assert "not permitted" in rig.optimizer.output_tail


def test_endless_forbidden_calls_are_ended(zygote: Zygote) -> None:
    step = """
    import os
    while True:
        os.getppid()
    """
    limits = dataclasses.replace(LIMITS, cpu_s=60.0, wall_s=60.0)
    with jailed(zygote, optimizer_file(step), limits) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure, match="10000 system calls"):
            rig.step()


def test_a_sleep_that_is_interrupted_by_a_stop_goes_on(zygote: Zygote) -> None:
    with jailed(zygote, optimizer_file("import time; time.sleep(0.3)")) as rig:
        rig.optimizer.build()
        for after_s, number in ((0.1, signal.SIGSTOP), (0.2, signal.SIGCONT)):
            threading.Timer(after_s, os.kill, (rig.optimizer.pid, number)).start()

        rig.step()


def test_a_sleeping_candidate_is_ended_by_the_wall_clock(zygote: Zygote) -> None:
    limits = dataclasses.replace(LIMITS, wall_s=0.3)
    with jailed(zygote, optimizer_file("import time; time.sleep(60)"), limits) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            rig.step()

        assert caught.value.status is Status.TIMEOUT_WALL


def test_an_error_in_the_file_itself_names_its_line(zygote: Zygote) -> None:
    with jailed(zygote, "import torch\n\ndef broken(:\n") as rig:
        with pytest.raises(JailFailure) as caught:
            rig.optimizer.build()

        assert (caught.value.status, caught.value.line) == (Status.CRASH, 3)


# The answer pipe is the only writable pipe besides the output, whatever its number.
_WRITE_EVERYWHERE = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, {message!r})
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    "message",
    [
        b"dd",
        b"x",
        b"e\xff\xff\xff\xff",
        b"e\x02\x00\x00\x00[]",
        b"e\x04\x00\x00\x00\xff\xfe??",
    ],
)
def test_forged_answers_are_a_protocol_error(zygote: Zygote, message: bytes) -> None:
    with jailed(zygote, optimizer_file(_WRITE_EVERYWHERE.format(message=message))) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            _train(rig)

        assert caught.value.status is Status.PROTOCOL_ERROR


def test_a_report_with_an_absurd_number_is_a_protocol_error(zygote: Zygote) -> None:
    body = b'{"kind":"X","message":"m","where":"w","line":' + b"9" * 9000 + b"}"
    message = b"e" + len(body).to_bytes(4, "little") + body
    with jailed(zygote, optimizer_file(_WRITE_EVERYWHERE.format(message=message))) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            rig.step()

        assert caught.value.status is Status.PROTOCOL_ERROR


def test_answering_without_reading_the_request_is_a_protocol_error(zygote: Zygote) -> None:
    """Unread requests would fill the pipe and block the worker for good."""
    write = textwrap.indent(_WRITE_EVERYWHERE.format(message=b"d"), "    ")
    step = f"""
import signal, time
def answer(*_):
{write}
signal.signal(signal.SIGCONT, answer)
answer()
while True:
    time.sleep(60)
"""
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            _train(rig)

        assert caught.value.status is Status.PROTOCOL_ERROR


def test_the_metadata_of_files_cannot_be_read(zygote: Zygote) -> None:
    step = "import os; os.open('/etc/passwd', os.O_PATH)"
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            rig.step()

        assert caught.value.status is Status.POLICY_VIOLATION


def _train(rig: Rig) -> None:
    for number in range(3):
        rig.step(number)


def test_closing_the_answer_pipe_is_a_protocol_error(zygote: Zygote) -> None:
    step = """
    import os
    for fd in range(3, 64):
        try:
            os.close(fd)
        except OSError:
            pass
    while True:
        pass
    """
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            rig.step()

        assert caught.value.status in (Status.PROTOCOL_ERROR, Status.TIMEOUT_CPU)


def test_a_jail_is_stopped_outside_its_turn(zygote: Zygote) -> None:
    """An answer sent early must not let the candidate write on during the worker's turn.

    It is no protocol error: a candidate that answers early loses the rest of its own turn.
    """
    step = (
        _WRITE_EVERYWHERE.format(message=b"d")
        + "\nwhile True: self.param_groups[0]['params'][0].data.add_(1)"
    )
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()
        rig.step()

        first = rig.params.clone()
        busy = sum(range(2_000_000))
        second = rig.params.clone()

        assert busy > 0
        assert torch.equal(first, second)


def test_terminal_escapes_never_leave_the_sandbox(zygote: Zygote) -> None:
    source = optimizer_file(r"print('\x1b[2Jout'); raise ValueError('\x1b]0;title\x07\u202eboo')")
    with jailed(zygote, source) as rig:
        rig.optimizer.build()
        with pytest.raises(JailFailure) as caught:
            rig.step()
        rig.optimizer.end()

        for text in (caught.value.reason, rig.optimizer.output_tail):
            assert all(character.isprintable() or character == "\n" for character in text)
        assert "out" in rig.optimizer.output_tail


def test_output_is_kept_up_to_its_limit_and_no_further(zygote: Zygote) -> None:
    limits = dataclasses.replace(LIMITS, output_keep_bytes=100)
    with jailed(zygote, optimizer_file("print('a' * 5000 + 'z' * 50)"), limits) as rig:
        rig.optimizer.build()
        rig.step()
        rig.optimizer.end()

        assert len(rig.optimizer.output_tail) == 100
        assert rig.optimizer.output_tail.endswith("z" * 50 + "\n")


def test_a_jail_sees_no_environment_and_no_spare_descriptor(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    step = """
    import errno, os
    print(sorted(os.environ))
    errors = []
    for fd in range(64):
        try:
            errors.append(os.lseek(fd, 0, os.SEEK_CUR))
        except OSError as error:
            errors.append(error.errno)
    print(len([number for number in errors if number != errno.EBADF]), "open")
    """
    with jailed(zygote, optimizer_file(step)) as rig:
        rig.optimizer.build()
        rig.step()
        rig.optimizer.end()

        assert "KEY" not in rig.optimizer.output_tail
        # three standard ones, the request pipe and the answer pipe
        assert "5 open" in rig.optimizer.output_tail


def test_nothing_is_left_of_an_ended_jail(zygote: Zygote) -> None:
    with jailed(zygote, optimizer_file("while True: pass")) as rig:
        rig.optimizer.build()
        pid = rig.optimizer.pid
        with pytest.raises(JailFailure):
            rig.step()
        report = rig.optimizer.end()

        assert report.signal == signal.SIGKILL
        assert report.cpu_s >= 1.0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_descriptors_do_not_pile_up_over_many_jails(zygote: Zygote) -> None:
    counts = []
    for _ in range(4):
        with jailed(zygote, optimizer_file("pass")) as rig:
            rig.optimizer.build()
        del rig
        gc.collect()  # the rig's own maps hold descriptors
        counts.append(len(os.listdir("/proc/self/fd")))

    assert len(set(counts)) == 1


def test_a_jail_ends_with_its_zygote() -> None:
    zygote = Zygote()
    with contextlib.suppress(SandboxFailure), jailed(zygote, optimizer_file("pass")) as rig:
        rig.optimizer.build()
        pidfd = os.pidfd_open(rig.optimizer.pid)

        zygote.close()

        ended, _, _ = select.select([pidfd], [], [], 10.0)
        os.close(pidfd)
        assert ended


def test_a_jail_that_cannot_be_confined_is_nobodys_fault_but_the_sandboxs(zygote: Zygote) -> None:
    limits = dataclasses.replace(LIMITS, descriptors=1)  # Landlock needs one
    with (
        jailed(zygote, optimizer_file("pass"), limits) as rig,
        pytest.raises(SandboxFailure, match="could not be confined"),
    ):
        rig.optimizer.build()


def test_a_jail_that_somebody_else_kills_is_not_blamed_for_memory(zygote: Zygote) -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=4 << 30)
    with jailed(zygote, optimizer_file("import time; time.sleep(5)"), limits) as rig:
        rig.optimizer.build()
        threading.Timer(0.2, os.kill, (rig.optimizer.pid, signal.SIGKILL)).start()

        with pytest.raises(SandboxFailure, match="killed from outside"):
            rig.step()


def test_a_jail_that_aborts_has_crashed(zygote: Zygote) -> None:
    with jailed(zygote, optimizer_file("import os; os.abort()")) as rig:
        rig.optimizer.build()

        with pytest.raises(JailFailure) as caught:
            rig.step()

    assert caught.value.status is Status.CRASH
