"""The trusted side of a zygote: start it, have it fork jails, end it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sandbox.bubblewrap import find_bubblewrap, wrap
from sandbox.cgroups import ControlGroup, make_control_group
from sandbox.confine import ALL_LAYERS, Layer, set_timer_slack
from sandbox.jail_process import ExitReport, Jail, Pipes, SandboxFailure
from sandbox.zygote_start import ZygoteOptions, zygote_command

__all__ = ["Outer", "Zygote", "memory_file"]

_ZYGOTE_START_S = 120.0
_FORK_S = 20.0
_EXIT_S = 20.0
_CLOSE_S = 2.0
_TIMER_SLACK_NS = 1000  # the default of 50 us would be most of a turn's overhead
_READ_BYTES = 1 << 16


def memory_file(name: str, content: bytes) -> int:
    """Make an anonymous memory file of fixed size: a shrinking one would crash whoever maps it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, max(1, len(content)))
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class Outer(StrEnum):
    """Who puts a zygote and its jails into namespaces of their own.

    `auto` is the zygote itself or, where it may not, bubblewrap where that is installed. With
    `none` there is no control group either: level 2 is then the most there can be.
    """

    AUTO = "auto"
    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


class Zygote:
    """The process that has only imported torch; forks one jail at a time.

    It and its jails live in namespaces and a control group of their own where that is possible.
    """

    def __init__(self, outer: Outer = Outer.AUTO) -> None:
        set_timer_slack(_TIMER_SLACK_NS)
        self._outer = outer
        self._group, reason = None, "not asked for"
        if outer is not Outer.NONE:
            self._group, reason = make_control_group(os.getpid())
        self._no_group = (f"control group: {reason}",) if reason else ()
        self._bubblewrap = find_bubblewrap() if outer is Outer.BUBBLEWRAP else None
        self._control, self._process = self._launch()
        self._report: dict[str, Any] | None = None

    def wait_until_ready(self) -> None:
        """Wait until the zygote has imported everything.

        Raises:
            SandboxFailure: it did not get there, or has more than one thread.
        """
        if self._report is not None:
            return
        report = self._receive(_ZYGOTE_START_S)
        program = find_bubblewrap()
        if report["missing"] and program is not None and self._outer is Outer.AUTO:
            report = self._restart_inside(program) or report
        if report["threads"] != 1:
            threads = report["threads"]
            raise SandboxFailure(f"the zygote has {threads} threads; forking it could hang")
        if self._group is not None and not report["joined"]:
            self._group.abandon()
            self._group, self._no_group = None, ("control group: it could not be joined",)
        if self._group is not None:
            self._group.settle()
        self._report = report

    @property
    def layers(self) -> frozenset[Layer]:
        """The lines of defence that every candidate's jail gets here."""
        self.wait_until_ready()
        has_tables = self._report is not None and self._report["process_tables"]
        return ALL_LAYERS if has_tables else ALL_LAYERS - {Layer.PROCESS_TABLE}

    @property
    def missing(self) -> tuple[str, ...]:
        """What the zygote and its worker could not set up, as "mechanism: reason"."""
        no_table = Layer.PROCESS_TABLE not in self.layers
        no_tables = ("process table: the kernel does not allow it",) if no_table else ()
        # Bubblewrap has done what the zygote was not asked for.
        own = self._report["missing"] if self._report and not self.is_wrapped else ()
        return (*own, *no_tables, *self._no_group)

    @property
    def pid(self) -> int:
        """Process id of the zygote; of bubblewrap, where that is the outer layer."""
        return self._process.pid

    @property
    def is_wrapped(self) -> bool:
        """Whether bubblewrap is the outer layer."""
        return self._bubblewrap is not None

    def fork(
        self,
        order: Mapping[str, Any],
        params_fd: int,
        grads_fd: int,
        layers: frozenset[Layer] = ALL_LAYERS,
    ) -> Jail:
        """Fork a jail that will carry out `order` over the two shared maps.

        Args:
            order: see `sandbox.jailed.jail_order`.
            params_fd: memory file of the parameters.
            grads_fd: memory file of the gradients.
            layers: the lines of defence to put up, of those that there are; probing alone leaves
                any out.

        Raises:
            SandboxFailure: the zygote did not answer, or memory has run out.
        """
        layers = layers & self.layers
        names = sorted(layers)
        if self._group is not None:
            self._prepare_group(self._group, order["limits"]["memory_bytes"])
        with contextlib.ExitStack() as ours:
            pipes = Pipes(ours)
            order_fd = memory_file("order", json.dumps({**order, "layers": names}).encode("utf-8"))
            ours.callback(os.close, order_fd)
            sent = [order_fd, params_fd, grads_fd, *pipes.theirs]
            self._control.settimeout(_FORK_S)
            try:
                socket.send_fds(self._control, [json.dumps({"layers": names}).encode()], sent)
                _, fds, _, _ = socket.recv_fds(self._control, _READ_BYTES, 1)
            except OSError as error:
                pipes.close_ours()
                raise SandboxFailure(f"the zygote did not fork a jail: {error}") from error
            if not fds:
                pipes.close_ours()
                raise SandboxFailure("the zygote ended instead of forking a jail")
        return Jail(pidfd=fds[0], pipes=pipes, exit_report=self.exit_report)

    def exit_report(self) -> ExitReport:
        """Wait for the report on the jail that has ended or is being killed.

        Whatever the jail has started is gone, too, when this returns.
        """
        report = ExitReport(**self._receive(_EXIT_S))
        if self._group is not None:
            try:
                self._group.clear()
            except (TimeoutError, OSError) as error:
                raise SandboxFailure(f"a jail's control group: {error}") from error
        return report

    def close(self) -> None:
        """End the zygote, and with it any jail."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        if self._group is not None:
            self._group.remove()
            self._group = None

    def _launch(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        joins = self._group.joins if self._group is not None else ()
        wrapped = self._bubblewrap is not None
        options = ZygoteOptions(
            parent=0 if wrapped else os.getpid(),
            control_fd=theirs.fileno(),
            joins=joins,
            namespaces=self._outer is not Outer.NONE and not wrapped,
        )
        command, environment = zygote_command(options)
        if self._bubblewrap is not None:
            command = wrap(self._bubblewrap, command)
        # A clean environment: children can read their parent's in /proc/self/environ.
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            env=environment,
            pass_fds=(theirs.fileno(), *joins),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
        theirs.close()
        return ours, process

    def _restart_inside(self, program: str) -> dict[str, Any] | None:
        """Start again inside bubblewrap; None, and back as before, if that does not work."""
        before = self._control, self._process
        self._bubblewrap = program
        self._control, self._process = self._launch()
        try:
            report = self._receive(_ZYGOTE_START_S)
        except SandboxFailure:
            self._control.close()
            self._process.kill()
            self._process.wait()
            self._bubblewrap = None
            self._control, self._process = before
            return None
        before[0].close()
        before[1].kill()
        before[1].wait()
        return report

    def _prepare_group(self, group: ControlGroup, memory_bytes: int) -> None:
        try:
            group.limit_memory(memory_bytes)
        except OSError as error:
            raise SandboxFailure(f"a jail's control group: {error}") from error

    def _exit_code(self) -> str:
        try:
            return f"exit code {self._process.wait(_CLOSE_S)}"
        except subprocess.TimeoutExpired:
            return "it has hung up and is about to end"

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        try:
            self._control.settimeout(timeout_s)
            message = self._control.recv(_READ_BYTES)
        except OSError as error:
            raise SandboxFailure(f"the zygote did not answer: {error}") from error
        if not message:
            raise SandboxFailure(
                f"the process that jails are forked from ended ({self._exit_code()}): its last "
                "words are in the error output; if a module is missing, run `make setup`; if it "
                "was killed, try again with more memory free"
            )
        fields: dict[str, Any] = json.loads(message)
        return fields
