"""The command table and its parser: the same words as docker's, and refusals by name."""

from __future__ import annotations

import importlib

import pytest

from pydock_core.commands.parser import Help, Parsed, build_parser, parse
from pydock_core.commands.table import COMMANDS, LATER_COMMANDS, Command, find
from pydock_core.errors import InvalidError, UnsupportedError

TUTORIAL = (
    "run --runtime nvidia -it -p 8888:8888 -p 6006:6006 -v /home/me/Tensorflow:/home/Tensorflow --name tf "
    "tensorflow/tensorflow:latest-gpu-py3 bash"
)


def words_of(line: str) -> Parsed:
    parsed = parse(line.split())
    assert isinstance(parsed, Parsed)
    return parsed


def test_the_tutorials_line_parses_as_typed() -> None:
    parsed = words_of(TUTORIAL)
    words = parsed.words
    assert parsed.command.name == "run"
    assert (words.runtime, words.interactive, words.tty, words.name) == ("nvidia", True, True, "tf")
    assert words.publish == ["8888:8888", "6006:6006"]
    assert words.volume == ["/home/me/Tensorflow:/home/Tensorflow"]
    assert (words.IMAGE, words.COMMAND) == ("tensorflow/tensorflow:latest-gpu-py3", ["bash"])


def test_words_after_the_image_belong_to_the_container() -> None:
    words = words_of("run --rm -e A=1 busybox sh -c exit --help -it --name x").words
    assert words.COMMAND == ["sh", "-c", "exit", "--help", "-it", "--name", "x"]
    assert words.name is None
    assert words.rm


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_handler_and_a_help(command: Command) -> None:
    module, _, function = command.handler.partition(":")
    assert callable(getattr(importlib.import_module(f"pydock_core.commands.{module}"), function))
    text = build_parser(command).format_help()
    for option in command.options:
        assert option.flags[-1] in text
    for path in (command.path, *command.aliases):
        shown = parse([*path, "--help"])
        assert isinstance(shown, Help)
        assert command.summary in shown.text
    overview = parse(["--help"])
    assert isinstance(overview, Help)
    assert f"  {command.name}  " in overview.text


@pytest.mark.parametrize("name", sorted(LATER_COMMANDS))
def test_docker_commands_of_later_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"dock {name} is not supported by this version") as caught:
        parse([name])
    assert caught.value.hint


@pytest.mark.parametrize("line", ["build .", "image build -t x .", "buildx build ."])
def test_build_names_what_makes_images_here(line: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        parse(line.split())
    assert "dock commit" in caught.value.hint
    assert "dock image capture" in caught.value.hint
    assert find(("commit",))
    assert find(("image", "capture"))


def test_no_command_is_both_there_and_later() -> None:
    assert not {command.path[0] for command in COMMANDS if len(command.path) == 1} & set(LATER_COMMANDS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sta", "no such command: sta"),
        ("--frobnicate", "unknown option"),
        ("ps --frobnicate", "unrecognized arguments: --frobnicate"),
        ("run", "required: IMAGE"),
        ("rm", "required: CONTAINER"),
        ("run --name", "expected one argument"),
        ("load box.tar -q", "unrecognized arguments: box.tar"),
        ("images --quiet=maybe", "-q/--quiet: neither true nor false: 'maybe'"),
        ("images -q=maybe", "-q/--quiet: neither true nor false: 'maybe'"),
        ("images -qx", "unrecognized arguments: -x"),
        ("images -qxyz", "unrecognized arguments: -xyz"),
        ("container frobnicate", "no such command: container frobnicate"),
    ],
)
def test_bad_words_are_one_line_and_exit_125(line: str, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(line.split())
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 125


@pytest.mark.parametrize("word", ["-h", "--help", "--no-trunc=true"])
def test_words_behind_two_dashes_are_no_options(word: str) -> None:
    words = words_of(f"history -- {word}").words
    assert (words.IMAGE, words.no_trunc, words.help) == (word, False, False)


def test_a_word_with_a_zero_byte_is_refused() -> None:
    for words in (["run", "-v", "/a\0b:/c", "x"], ["ps\0"], ["run", "--cidfile=\0", "x"]):
        with pytest.raises(InvalidError, match="zero byte") as caught:
            parse(words)
        assert caught.value.exit_code == 125


def test_a_near_miss_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        parse(["strat", "x"])
    assert "dock start" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("run --rmm x", "did you mean --rm?"),
        ("run --detatch=true x", "did you mean --detach?"),
        ("container ps --al", "did you mean --all?"),
        ("ps --frobnicate", "see dock ps --help"),
        ("rm -rf x", "see dock rm --help"),
        ("run --name", "see dock run --help"),
    ],
)
def test_an_options_near_miss_is_named(line: str, hint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(line.split())
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("image histroy", "did you mean dock image history?"),
        ("image foo", "dock image --help lists what there is"),
        ("contaner ls", "did you mean dock container ls?"),
        ("netwrok ls -q", "did you mean dock network ls -q?"),
        ("volum", "did you mean dock volume?"),
        ("volum prun", "did you mean dock volume prune?"),
        ("contaner qqqq", "dock --help lists what there is"),
        ("rum box", "did you mean dock run box?"),
        ("container rn box", "did you mean dock container run box?"),
        ("remove box", "did you mean dock rm box?"),
        ("network delete web", "did you mean dock network rm web?"),
        ("container lst", "did you mean dock container list?"),
        ("qqqq", "dock --help lists what there is"),
    ],
)
def test_a_groups_command_is_compared_with_the_groups_own(line: str, hint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(line.split())
    assert caught.value.hint == hint


def test_aliases_lead_to_the_same_command() -> None:
    assert find(("container", "ls")) == find(("container", "list"))
    assert words_of("container ls -a").command is words_of("ps -a").command
    assert words_of("image rm x").command is words_of("rmi x").command


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import fs.tar -c USER=1 -m text box:1", {"FILE|-": "fs.tar", "REPOSITORY[:TAG]": "box:1"}),
        ("import -c USER=1 - box:1", {"FILE|-": "-", "REPOSITORY[:TAG]": "box:1", "change": ["USER=1"]}),
        ("commit web -m text box:1 --pause=false", {"REPOSITORY[:TAG]": "box:1", "pause": False}),
        ("save one -o out.tar two", {"IMAGE": ["one", "two"], "output": "out.tar"}),
        ("save one --output=out.tar two", {"IMAGE": ["one", "two"], "output": "out.tar"}),
        ("save one -oout.tar two", {"IMAGE": ["one", "two"], "output": "out.tar"}),
        ("rmi one -f two", {"IMAGE": ["one", "two"], "force": True}),
        (
            "images box -qf dangling=true",
            {"REPOSITORY[:TAG]": "box", "quiet": True, "filter": ["dangling=true"]},
        ),
        ("rmi one -f -- -two --force", {"IMAGE": ["one", "-two", "--force"], "force": True}),
        ("login -u ann registry.test --password-stdin", {"SERVER": "registry.test", "username": "ann"}),
    ],
)
def test_options_stand_anywhere_among_the_arguments(line: str, expected: dict[str, object]) -> None:
    words = vars(words_of(line).words)
    assert {name: words[name] for name in expected} == expected


@pytest.mark.parametrize("line", ["import fs.tar -c", "rmi one --platform", "load box.tar -i"])
def test_an_options_value_is_no_argument(line: str) -> None:
    with pytest.raises(InvalidError, match="expected one argument"):
        parse(line.split())


def test_the_short_flag_asks_for_help_where_it_is_no_other() -> None:
    for line in ("-h", "image -h", "pull -h", "exec -h", "pull box -h"):
        assert isinstance(parse(line.split()), Help), line
    assert words_of("run -h name box ls -h").words.hostname == "name"


def test_parsing_twice_shares_nothing() -> None:
    first = words_of("run -e A=1 busybox").words
    second = words_of("run busybox").words
    assert first.env == ["A=1"]
    assert second.env == []
