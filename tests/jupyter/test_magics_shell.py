"""%dock in an IPython shell: which words reach the command, and what its result looks like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import CapturedIO, capture_output

from pydock_core.commands import dispatch
from pydock_core.commands.context import Context

Command = Callable[[list[str], Context], int]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("PYDOCK_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setattr("pydock_core.engine.Engine.warm", lambda self: None)
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    made.history_manager.enabled = False
    made.run_line_magic("load_ext", "pydock_jupyter")
    yield made
    made.run_line_magic("unload_ext", "pydock_jupyter")
    made.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture
def run(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CapturedIO]:
    """Run a cell in which every command does what the test says; ``fails`` is the exit code that it raises."""

    def run_cell(cell: str, command: Command | None = None, *, fails: int = 0) -> CapturedIO:
        if command is not None:
            monkeypatch.setattr(dispatch, "run_command", command)
        with capture_output() as captured:
            result = shell.run_cell(cell)
        if not fails:
            assert result.success
            return captured
        assert isinstance(result.error_in_exec, subprocess.CalledProcessError)
        assert result.error_in_exec.returncode == shell.user_ns["_exit_code"] == fails
        return captured

    return run_cell


class Recorder:
    """A command that notes what it was given."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.stdin: bytes | None = None

    def __call__(self, words: Sequence[str], context: Context) -> int:
        self.words = list(words)
        self.stdin = context.stdin.read() if isinstance(context.stdin, BytesIO) else None
        assert context.notebook
        return 0


def test_line_becomes_words(run: Callable[..., CapturedIO], tmp_path: Path) -> None:
    recorder = Recorder()
    run(
        "image = 'demo'\n%dock run -it --name=$image -v $(pwd)/Tensorflow:/home/Tensorflow {image} true",
        recorder,
    )
    mount = f"{tmp_path}/Tensorflow:/home/Tensorflow"
    assert recorder.words == ["run", "-it", "--name=demo", "-v", mount, "demo", "true"]
    assert recorder.stdin is None


def test_go_templates_survive(run: Callable[..., CapturedIO]) -> None:
    recorder = Recorder()
    run("%dock ps --format '{{.Names}}'", recorder)
    assert recorder.words == ["ps", "--format", "{{.Names}}"]


def test_names_of_a_function_expand(run: Callable[..., CapturedIO]) -> None:
    recorder = Recorder()
    run("def f(name):\n    get_ipython().run_line_magic('dock', 'rm {name}')\nf('web')", recorder)
    assert recorder.words == ["rm", "web"]


def test_cell_is_standard_input(run: Callable[..., CapturedIO]) -> None:
    recorder = Recorder()
    run("%%dock run --rm demo python -\nprint('{image} $image')\n", recorder)
    assert recorder.words == ["run", "--interactive", "--rm", "demo", "python", "-"]
    assert recorder.stdin == b"print('{image} $image')\n"


@pytest.mark.parametrize("line", ["exec web sh", "container exec web sh"])
def test_exec_reads_the_cell(run: Callable[..., CapturedIO], line: str) -> None:
    recorder = Recorder()
    run(f"%%dock {line}\ndate\n", recorder)
    assert recorder.words[-3:] == ["--interactive", "web", "sh"]


def test_a_password_may_be_the_cell(run: Callable[..., CapturedIO]) -> None:
    recorder = Recorder()
    run("%%dock login -u ann --password-stdin registry.test\nsecret\n", recorder)
    assert recorder.words == ["login", "-u", "ann", "--password-stdin", "registry.test"]
    assert recorder.stdin == b"secret\n"


def test_without_a_kernel_progress_is_text(run: Callable[..., CapturedIO]) -> None:
    def command(words: Sequence[str], context: Context) -> int:
        assert context.progress is not None
        assert context.progress("done") is None
        return 0

    run("%dock pull x", command)


def test_a_command_without_input_refuses_a_cell(run: Callable[..., CapturedIO]) -> None:
    captured = run("%%dock ps\nx = 1\n", Recorder(), fails=125)
    assert captured.stderr.startswith("error: %%dock ps: the command does not read input")


def test_output_comes_in_order_and_whole(run: Callable[..., CapturedIO]) -> None:
    def command(words: Sequence[str], context: Context) -> int:
        context.stdout.write_bytes("caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode()[:-1])
        context.stdout.write_bytes(b"\xa9\n")
        context.stdout.write("text\n")
        context.stdout.write_bytes(b"\xff\n")
        context.stdout.write_bytes(b"\xc3")
        return 0

    assert run("%dock x", command).stdout == "caf\xe9\ntext\n\ufffd\n\ufffd"


def chatty(words: Sequence[str], context: Context) -> int:
    """Write something, and end as if memory had run out."""
    context.stdout.write("why\n")
    context.ending = "killed: out of memory (-m 64m)"
    return 137


def test_a_failure_is_raised_and_shown_in_one_line(run: Callable[..., CapturedIO]) -> None:
    captured = run("%dock run demo\nprint('not reached')", lambda words, context: 3, fails=3)
    assert (captured.stdout, captured.stderr) == ("CommandError: dock run: exit code 3\n", "")
    captured = run("%dock container run demo", chatty, fails=137)
    line = "CommandError: dock run: exit code 137: killed: out of memory (-m 64m)"
    assert (captured.stdout, captured.stderr) == (f"why\n{line}\n", "")


def test_a_failure_can_be_caught(run: Callable[..., CapturedIO], shell: InteractiveShell) -> None:
    cell = (
        "import subprocess\ntry:\n    %dock image prune -f\n"
        "except subprocess.CalledProcessError as error:\n    caught = error.returncode, error.cmd"
    )
    run(cell, lambda words, context: 4)
    assert shell.user_ns["caught"] == (4, ["dock", "image", "prune", "-f"])


@pytest.mark.parametrize("cell", ["%dock --no-raise run demo", "%dock --debug --no-raise run demo"])
def test_no_raise_tells_the_exit_code_and_goes_on(
    run: Callable[..., CapturedIO], shell: InteractiveShell, cell: str
) -> None:
    captured = run(cell + "\nprint('reached')", chatty)
    assert captured.stdout == "why\nreached\n"
    assert captured.stderr == "exit code 137: killed: out of memory (-m 64m)\n"
    assert shell.user_ns["_exit_code"] == 137


def test_a_setting_makes_no_command_raise(run: Callable[..., CapturedIO], shell: InteractiveShell) -> None:
    run("%config DockMagics.raise_on_error = False")
    assert run("%dock run demo", lambda words, context: 3).stderr == "exit code 3\n"
    assert shell.user_ns["_exit_code"] == 3
    run("%config DockMagics.raise_on_error = True")
    run("%dock run demo", fails=3)


def test_what_was_killed_is_told_though_the_command_succeeded(run: Callable[..., CapturedIO]) -> None:
    def survivor(words: Sequence[str], context: Context) -> int:
        context.ending = "a process of the container was killed: out of memory"
        return 0

    captured = run("%dock run demo", survivor)
    assert captured.stderr == "note: a process of the container was killed: out of memory\n"


def test_an_error_is_one_line_and_a_hint(run: Callable[..., CapturedIO]) -> None:
    captured = run("%dock run -v '$(pwd)", fails=125)
    assert captured.stderr.count("\n") == 2
    assert captured.stderr.startswith("error: %dock: no closing quotation")
    assert "hint: " in captured.stderr


def test_unknown_commands_are_refused(run: Callable[..., CapturedIO]) -> None:
    captured = run("%dock strat web", fails=125)
    assert captured.stderr == "error: dock: no such command: strat\nhint: did you mean dock start web?\n"
    assert captured.stdout == "CommandError: dock strat: exit code 125\n"


def test_tables_are_html_and_escaped(run: Callable[..., CapturedIO]) -> None:
    def command(words: Sequence[str], context: Context) -> int:
        assert context.table is not None
        context.table(["NAMES", "COMMAND"], [["web", "<script>"]])
        return 0

    (output,) = run("%dock ps", command).outputs
    assert "<th" in output.data["text/html"]
    assert "&lt;script&gt;" in output.data["text/html"]
    assert "<script>" not in output.data["text/html"]
    assert output.data["text/plain"].split() == ["NAMES", "COMMAND", "web", "<script>"]


@pytest.mark.parametrize("option", ["", "--no-raise "])
def test_an_interrupt_stops_the_notebook_with_one_line(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def command(words: Sequence[str], context: Context) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatch, "run_command", command)
    with capture_output() as captured:
        result = shell.run_cell(f"%dock {option}wait web\nprint('not reached')")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert captured.stdout == "KeyboardInterrupt: dock wait was interrupted\n"
    assert captured.stderr == ""
    assert shell.user_ns["_exit_code"] == 130


@pytest.mark.parametrize("use_jedi", [True, False])
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%dock sto", "stop"),
        ("%dock run --rea", "--read-only"),
        ("%%dock run --rea", "--read-only"),
        ("x = 1\n%dock ima", "images"),
        ("%dock rm we", "web"),
        ("%dock run de", "demo:latest"),
    ],
)
def test_completion_in_the_shell(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, use_jedi: bool, cell: str, expected: str
) -> None:
    def engine_lists(self: Any, question: Callable[[Any], list[str]]) -> list[str]:
        return ["web", "was", "demo:latest"]

    monkeypatch.setattr("pydock_jupyter.magics.completion.EngineSource._query", engine_lists)
    shell.Completer.use_jedi = use_jedi
    line = cell.splitlines()[-1]
    if "\n" not in cell:
        _, matches = shell.complete(None, line, len(line))
        assert expected in matches
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        found = [completion.text for completion in shell.Completer.completions(cell, len(cell))]
    assert expected in found
    assert all(text.startswith(line.split()[-1]) for text in found)


def test_unloading_takes_all_out(shell: InteractiveShell) -> None:
    before = len(shell.Completer.custom_matchers)
    shell.run_line_magic("reload_ext", "pydock_jupyter")
    assert len(shell.Completer.custom_matchers) == before
    shell.run_line_magic("unload_ext", "pydock_jupyter")
    assert shell.find_line_magic("dock") is None
    assert shell.find_cell_magic("dock") is None
    assert len(shell.Completer.custom_matchers) == before - 1
    assert not any(type(item).__name__ == "DockMagics" for item in shell.configurables)
    shell.run_line_magic("load_ext", "pydock_jupyter")
    assert shell.find_line_magic("dock") is not None


def test_loading_imports_little() -> None:
    """In a process of its own: IPython first, then what the extension brings along."""
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
import pydock_core.engine
pydock_core.engine.Engine.warm = lambda self: None
shell = InteractiveShell()
before = set(sys.modules)
shell.extension_manager.load_extension("pydock_jupyter")
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    new = set(done.stdout.split())
    assert "pydock_jupyter.magics.dock" in new
    heavy = {"sqlite3", "tornado", "rich", "pyroute2", "ipywidgets", "argparse", "subprocess", "tabulate"}
    assert not heavy & new
