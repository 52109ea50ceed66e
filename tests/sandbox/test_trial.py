"""One optimizer through preflight, jail and training: what is said, and with which exit code."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from nanochat.profiles import profile_names
from sandbox import trial
from sandbox.allowance import limits_relative_to
from sandbox.baseline import seed_program, shipped_program
from sandbox.executor import LocalPool
from sandbox.jobs import Outcome, Status, WorkerSpec
from sandbox.knobs import read_knobs, set_knobs
from sandbox.patches import make_patch, to_json
from sandbox.trial_report import as_json, print_report
from sandbox.trial_run import (
    BaselineFailure,
    Candidate,
    Report,
    not_an_edit,
    train_both,
    tuned_like,
    whole_file,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "trial.md").read_text(encoding="utf-8")
SEED = seed_program("micro")

_FILE = """
import torch

class Mine(torch.optim.AdamW):
    def observe(self, state):
        self.now = state

    def step(self):
{step}
        return super().step()

def build_optimizer(params, horizon):
    return Mine([p.tensor for p in params], lr=3e-3)
"""

Try = Callable[[str], Report]


def optimizer(step: str) -> str:
    return _FILE.format(step=textwrap.indent(textwrap.dedent(step), " " * 8))


@pytest.fixture(scope="module")
def trained() -> Iterator[Try]:
    """Try sources of one optimizer after another on one real worker, 8 steps each."""
    pool = LocalPool(WorkerSpec(profile="micro"), 1)
    with asyncio.Runner() as runner:
        runner.run(pool.__aenter__())

        def run(source: str) -> Report:
            candidate = Candidate(name="mine.py", source=source)
            return runner.run(train_both(pool, candidate=candidate, baseline=SEED, seed=1, steps=8))

        yield run
        runner.run(pool.__aexit__(None, None, None))


def printed(report: Report, *, width: int = 300) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as capture:
        print_report(console, report)
    return capture.get()


def invoke(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(trial.app, list(words))
    return result.exit_code, result.stdout, result.stderr


def refused(*words: str) -> str:
    """Run the command, which has to end with exit code 2; return its one sentence."""
    code, output, error = invoke(*words)
    assert (code, output) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1, "one sentence"
    return error


def test_an_optimizer_that_works_is_scored_beside_the_shipped_one(trained: Try) -> None:
    report = trained(optimizer("pass"))

    assert report.status is Status.OK
    assert report.measured is not None
    assert report.baseline is not None
    assert report.baseline.outcome.bpb is not None
    used = report.baseline.outcome
    assert report.measured.limits == limits_relative_to(used.jail_cpu_s, used.wall_s)
    assert f"{report.baseline.outcome.bpb:.4f}, same seed" in printed(report)
    assert re.search(r"score .*\d\.\d{4} (better|worse) than the shipped", printed(report))


def test_the_example_of_the_documentation_trains(trained: Try) -> None:
    example = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)[0]

    assert trained(example).status is Status.OK


def test_the_shipped_optimizer_is_recognised(trained: Try) -> None:
    report = trained(SEED)

    assert report.difference_bpb == 0.0
    assert "the very weights of the shipped optimizer" in printed(report)


@pytest.mark.parametrize(
    ("step", "status", "quote"),
    [
        ("raise ValueError('no')", Status.CRASH, "raise ValueError('no')"),
        ("import os\nos.fork()", Status.POLICY_VIOLATION, "os.fork()"),
        ("for p in self.param_groups[0]['params']: p.data.fill_(float('nan'))", Status.NAN, ""),
        ("while True: pass", Status.TIMEOUT_CPU, ""),
        ("print('x' * (2 << 20))", Status.OUTPUT_LIMIT, ""),
        ("self.big = torch.empty(6 << 28)", Status.OOM, "self.big = torch.empty(6 << 28)"),
    ],
)
def test_a_failure_is_told_with_its_verdict_and_the_text_of_its_line(
    trained: Try, step: str, status: Status, quote: str
) -> None:
    report = trained(optimizer(step))

    assert report.status is status
    assert report.quote == quote
    assert report.difference_bpb is None
    words = printed(report)
    assert status.value in words
    assert f"`{quote}`" in words or not quote
    assert "only a finished run has one" in words


def test_a_file_without_the_contract_is_told_where_to_read_it(trained: Try) -> None:
    report = trained("x = 1\n")

    assert "docs/trial.md" in printed(report)
    assert "failed before the first of 8" in printed(report)


def test_what_a_candidate_says_reaches_the_terminal_quoted_and_without_escapes(
    trained: Try,
) -> None:
    report = trained(optimizer("print('\\x1b[2J[bold red]hi[/bold red]', self.now.step)"))
    fake = trained(optimizer("raise ValueError('\\x1b]0;owned\\x07[bold]')"))

    words = printed(report)
    assert "  | [2J[bold red]hi[/bold red] 7" in words
    assert "\x1b" not in words + printed(fake) + as_json(report) + as_json(fake)
    assert "ValueError: ]0;owned[bold]" in printed(fake), "a candidate's text is never markup"


def test_only_the_last_of_many_printed_lines_are_shown_each_cut(trained: Try) -> None:
    report = trained(optimizer("for k in range(99): print('line', k)\nprint('y' * 5000)"))

    words = printed(report)
    assert "line 98" in words
    assert "line 2\n" not in words
    assert max(map(len, words.split("\n"))) <= 200


def test_a_report_fits_a_narrow_terminal(trained: Try) -> None:
    words = printed(trained(optimizer("pass")), width=80)

    assert max(map(len, words.split("\n"))) <= 80


def test_an_unsafe_run_says_so(trained: Try) -> None:
    report = trained(optimizer("pass"))
    assert report.measured is not None
    unsafe = replace(
        report,
        measured=replace(
            report.measured, outcome=replace(report.measured.outcome, unsafe=True, sandbox_level=1)
        ),
    )

    assert "UNSAFE" not in printed(report)
    assert "level S1, UNSAFE" in printed(unsafe)
    fields = json.loads(as_json(unsafe))
    assert (fields["unsafe"], fields["sandbox_level"]) == (True, 1)


def test_the_fields_of_the_json_are_those_of_the_documentation(trained: Try) -> None:
    table = DOCUMENT[DOCUMENT.index("## `--json`") :]
    documented = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }

    fields = json.loads(as_json(trained(optimizer("pass"))))

    assert set(fields) == documented
    for name in fields["cost"]:
        assert f"`{name}`" in table


def test_a_baseline_that_cannot_train_is_not_charged_to_the_candidate() -> None:
    class Failing:
        ready = None

        async def run(self, job: object) -> Outcome:  # noqa: ARG002 - as a pool's
            return Outcome(
                status=Status.SANDBOX_ERROR, reason="gone", bpb=None, curve=(), fingerprint=None
            )

    candidate = Candidate(name="mine.py", source="")
    with pytest.raises(BaselineFailure, match="gone") as caught:
        asyncio.run(
            train_both(Failing(), candidate=candidate, baseline=SEED, seed=1, steps=8)  # type: ignore[arg-type]  # nothing else of it is used
        )

    assert caught.value.is_sandbox


def test_an_edit_of_the_shipped_file_is_tuned_but_for_what_it_changed() -> None:
    shipped = shipped_program()
    moved = [
        name
        for name, knob in read_knobs(shipped).items()
        if knob.value != read_knobs(SEED)[name].value and isinstance(knob.value, float)
    ]
    edit = set_knobs(shipped, {moved[0]: 0.123})

    tuned = tuned_like(Candidate(name="mine.py", source=edit), shipped, SEED)

    assert tuned.source == set_knobs(SEED, {moved[0]: 0.123})
    assert tuned.tuned_knobs > 0


def test_a_program_of_a_run_is_tried_as_it_is() -> None:
    shipped = shipped_program()
    back = next(
        name for name, k in read_knobs(SEED).items() if k.value != read_knobs(shipped)[name].value
    )
    program = Candidate(
        name="best.py", source=set_knobs(SEED, {back: read_knobs(shipped)[back].value})
    )

    assert tuned_like(program, shipped, SEED) is program


def test_preflight_refuses_with_every_objection_and_trains_nothing(tmp_path: Path) -> None:
    source = shipped_program().replace(
        "# EVOLVE-BLOCK-START muon\n", "# EVOLVE-BLOCK-START muon\nimport socket\n"
    )
    (tmp_path / "spy.py").write_text(source, encoding="utf-8")

    code, output, error = invoke(str(tmp_path / "spy.py"))
    _, as_object, _ = invoke(str(tmp_path / "spy.py"), "--json")

    assert (code, error) == (1, "")
    assert "preflight_reject" in output
    assert "`import socket`" in output
    fields = json.loads(as_object)
    assert fields["status"] == "preflight_reject"
    assert fields["violations"][0]["text"] == "import socket"
    assert fields["text"] == "import socket"
    assert fields["baseline"] is None


def test_a_file_that_is_no_edit_is_shown_the_way_around_preflight(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(optimizer("pass"), encoding="utf-8")

    assert "--no-preflight" in invoke(str(tmp_path / "mine.py"))[1]


@pytest.mark.parametrize("flags", [[], ["--no-preflight"]])
def test_a_patch_that_does_not_fit_is_a_verdict_on_it(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "p.json").write_text('[{"search": "nowhere", "replace": ""}]', encoding="utf-8")

    code, output, _ = invoke("--patch", str(tmp_path / "p.json"), *flags)

    assert code == 1
    assert "occurs 0 times" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one optimizer file"),
        (["a.py", "--patch", "b.json"], "give one optimizer file"),
        (["nowhere.py"], "No such file"),
        (["."], "Is a directory"),
        (["/dev/zero"], "more than 4 MiB"),
        (["OK", "--profile", "cpi"], "unknown profile 'cpi'"),
        (["OK", "--device", "tpu"], "--device cannot be 'tpu'"),
        (["OK", "--data", "nowhere"], "does not exist"),
        (["OK", "--required-sandbox", "S7"], "the levels are S0"),
        (["OK", "--required-sandbox", "7"], "the levels are S0"),
        (["OK", "--required-sandbox", "-1"], "the levels are S0"),
        (["OK", "--required-sandbox", ""], "the levels are S0"),
        (["BINARY"], "not UTF-8 text"),
        (["--patch", "OK"], "is not a patch as runs store it"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_in_one_sentence(
    tmp_path: Path, words: list[str], message: str
) -> None:
    files = {"OK": tmp_path / "ok.py", "BINARY": tmp_path / "binary.py"}
    files["OK"].write_text(optimizer("pass"), encoding="utf-8")
    files["BINARY"].write_bytes(b"\xff\xfe\x00")

    assert message in refused(*(str(files.get(word, word)) for word in words))


@pytest.mark.parametrize("level", ["S0", "0", "s2", "2"])
def test_a_level_may_be_written_with_or_without_its_letter(tmp_path: Path, level: str) -> None:
    (tmp_path / "p.json").write_text('[{"search": "nowhere", "replace": ""}]', encoding="utf-8")

    code, _, _ = invoke("--patch", str(tmp_path / "p.json"), "--required-sandbox", level)

    assert code == 1, "the level was taken, the patch was not"


def test_the_profiles_are_those_there_are() -> None:
    assert sorted(trial.PROFILES) == sorted(profile_names())


def test_a_worker_that_cannot_start_is_the_sandbox_s_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ok.py").write_text(optimizer("pass"), encoding="utf-8")
    monkeypatch.setattr(sys, "executable", "/bin/false")

    code, output, error = invoke(str(tmp_path / "ok.py"), "--no-preflight")

    assert (code, output) == (3, "")
    assert "did not start" in error


@pytest.mark.slow
def test_the_command_tries_a_patch_from_end_to_end(tmp_path: Path) -> None:
    edit = make_patch(SEED, set_knobs(SEED, {"POLICY.ns_steps": 3}))
    (tmp_path / "p.json").write_text(to_json(edit), encoding="utf-8")

    words = ["--patch", str(tmp_path / "p.json"), "--json", "--steps", "8", "--seed", "3"]
    done = command(*words)

    fields = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (fields["status"], fields["violations"]) == ("ok", [])
    assert (fields["steps"], fields["seed"], fields["profile"]) == (8, 3, "micro")
    assert 0 < abs(fields["difference_bpb"]) < 1


@pytest.mark.parametrize("depth", [1, 3], ids=["while its worker starts", "while a jail runs"])
def test_ctrl_c_ends_it_with_a_word_and_leaves_no_process(tmp_path: Path, depth: int) -> None:
    (tmp_path / "s.py").write_text(optimizer("import time\ntime.sleep(999)"), encoding="utf-8")
    words = [sys.executable, "-m", "sandbox.trial", str(tmp_path / "s.py"), "--no-preflight"]
    with subprocess.Popen(  # noqa: S603 - our own command
        words,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        family = [process.pid]
        for _ in range(depth):
            family.append(first_child(family[-1]))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, worker and all
        output, error = process.communicate(timeout=60)

    assert (process.returncode, output) == (130, "")
    assert error == "Stopped; nothing was kept.\n"
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family[1:]))


def first_child(pid: int) -> int:
    """Wait until a process has a child and return that."""
    found: list[str] = []

    def has_child() -> bool:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        found[:] = children.read_text(encoding="ascii").split()
        return bool(found)

    wait_for(has_child)
    return int(found[0])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@pytest.mark.parametrize(("target", "code"), [("/dev/full", 3), (None, 1)])
def test_an_output_that_is_lost_is_no_verdict_and_one_that_is_closed_no_failure(
    tmp_path: Path, target: str | None, code: int
) -> None:
    (tmp_path / "p.json").write_text('[{"search": "nowhere", "replace": ""}]', encoding="utf-8")
    if target is None:
        reader, stdout = os.pipe()
        os.close(reader)
    else:
        stdout = os.open(target, os.O_WRONLY)

    done = command("--patch", str(tmp_path / "p.json"), stdout=stdout)
    os.close(stdout)

    assert done.returncode == code
    assert done.stderr.count("\n") == (1 if target else 0)


def command(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "sandbox.trial", *words],
        cwd=ROOT,
        text=True,
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
    )


def test_a_file_that_is_no_edit_gets_one_sentence_that_says_what_to_do() -> None:
    violation = not_an_edit(whole_file("import torch\n", SEED), SEED)

    assert violation is not None
    assert "--no-preflight" in violation.message


def test_an_edit_is_not_taken_for_a_foreign_file() -> None:
    assert not_an_edit(whole_file(SEED.replace("0.9", "0.8", 1), SEED), SEED) is None
