"""Say in words what a jail asked for and was refused."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["describe_calls"]

_PURPOSES = {
    "a network connection": (
        "socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom "
        "recvmsg recvmmsg"
    ),
    "a thread or a process": "clone fork vfork",
    "another program": "execve execveat",
    "a signal to a process": (
        "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal"
    ),
    "a file to write, create or change": (
        "openat open creat openat2 mkdir mkdirat unlink unlinkat rename renameat renameat2 link "
        "linkat symlink symlinkat chmod fchmod fchmodat truncate ftruncate mknod mknodat rmdir"
    ),
    "the memory of another process": "ptrace process_vm_readv process_vm_writev pidfd_getfd",
    "memory to share": "memfd_create memfd_secret shmget shmat shmdt shmctl",
    "a way around the jail": (
        "unshare setns mount umount2 pivot_root chroot io_uring_setup bpf userfaultfd "
        "perf_event_open keyctl add_key request_key seccomp prctl setuid setgid setresuid capset"
    ),
}
_PURPOSE_OF = {call: purpose for purpose, calls in _PURPOSES.items() for call in calls.split()}


def describe_calls(calls: Iterable[str]) -> str:
    """Describe system calls for a proposer, as in "a network connection (socket, connect)"."""
    by_purpose: dict[str, list[str]] = {}
    for call in calls:
        by_purpose.setdefault(_PURPOSE_OF.get(call, ""), []).append(call)
    return " and ".join(
        f"{purpose} ({', '.join(names)})" if purpose else f"the system call {', '.join(names)}"
        for purpose, names in by_purpose.items()
    )
