"""The line after %dock: the notebook's names, the shell's words, and what must survive both."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError
from pydock_jupyter.magics.words import expand_names, split_words

NAMESPACE = {
    "image": "debian:12",
    "n": 6,
    "data": SimpleNamespace(path="/mnt/data"),
    "options": "--rm -d",
    "environ": {"A": "1"},
    "items": ["a", "b"],
}
ENVIRON = {"HOME": "/home/me", "LANG": "C.UTF-8", "PWD": "/elsewhere"}
HERE = "/home/me/My Notebooks"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run {image} true", "run debian:12 true"),
        ("run $image true", "run debian:12 true"),
        ("run ${image} true", "run debian:12 true"),
        ("run -p {n * 1000}:80", "run -p 6000:80"),
        ("run -v $data.path:/data", "run -v /mnt/data:/data"),
        ("tag $image.tar", "tag debian:12.tar"),
        ("run -e A={environ['A']}", "run -e A=1"),
        ("run {n:03d}", "run 006"),
        ("run {', '.join(items)}", "run a, b"),
        ("run $$image", "run $image"),
        # what is not the notebook's stays
        ("run {missing} {image}", "run {missing} debian:12"),
        ("run $missing {image}", "run $missing debian:12"),
        ("run '$image' {n}", "run '$image' 6"),
        ('run "$image"', 'run "debian:12"'),
        (r"run \$image", r"run \$image"),
        ("ps --format '{{.Names}} {{.ID}}' {n}", "ps --format '{{.Names}} {{.ID}}' 6"),
        ("ps --format '{{json .}}'", "ps --format '{{json .}}'"),
        ("run x awk '{print $1}' {n}", "run x awk '{print $1}' 6"),
        ("run x awk '{print}'", "run x awk '{print}'"),
        ("run x sh -c 'f() { echo hi; }; f'", "run x sh -c 'f() { echo hi; }; f'"),
        ("run x echo '{\"n\": 1}'", "run x echo '{\"n\": 1}'"),
        ("run x touch a{1,2} {1..3} {n,n}", "run x touch a{1,2} {1..3} {n,n}"),
        ("run x find . -exec ls {} +", "run x find . -exec ls {} +"),
        ("run -v $(pwd)/x:/x", "run -v $(pwd)/x:/x"),
        ("run x sh -c 'echo ${image} $n'", "run x sh -c 'echo ${image} $n'"),
        ("{", "{"),
        ("{{x", "{{x"),
        ("$", "$"),
    ],
)
def test_names_of_the_notebook(line: str, expected: str) -> None:
    assert expand_names(line, NAMESPACE) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run -it debian sh", ["run", "-it", "debian", "sh"]),
        (
            "run -v $(pwd)/Tensorflow:/home/Tensorflow x",
            ["run", "-v", f"{HERE}/Tensorflow:/home/Tensorflow", "x"],
        ),
        ('run -v "$(pwd)":/x', ["run", "-v", f"{HERE}:/x"]),
        ("run -v `pwd`:/x", ["run", "-v", f"{HERE}:/x"]),
        ("run -v $PWD:/x", ["run", "-v", f"{HERE}:/x"]),
        ('run -v "${PWD}/a b":/x', ["run", "-v", f"{HERE}/a b:/x"]),
        ("run -v ~/data:/data -v ~:/home", ["run", "-v", "/home/me/data:/data", "-v", "/home/me:/home"]),
        ("run -v $HOME/data:/data", ["run", "-v", "/home/me/data:/data"]),
        ("run x a~ '~' \\~", ["run", "x", "a~", "~", "~"]),
        ("run x sh -c 'echo $HOME $(id)'", ["run", "x", "sh", "-c", "echo $HOME $(id)"]),
        ("run x echo \\$HOME", ["run", "x", "echo", "$HOME"]),
        ("run x echo $UNSET ${UNSET}", ["run", "x", "echo", "$UNSET", "${UNSET}"]),
        ("run x echo 'it''s' \"a # b\" #c", ["run", "x", "echo", "its", "a # b", "#c"]),
        ("run -e L=$LANG", ["run", "-e", "L=C.UTF-8"]),
        ("", []),
    ],
)
def test_words_of_the_shell(line: str, words: list[str]) -> None:
    assert split_words(line, ENVIRON, HERE) == words


@pytest.mark.parametrize(
    "line", ["run $(nproc)", "run `id -u`", "run $(pwd", 'run "$(ls)"', "run 'open", 'run "open']
)
def test_what_needs_a_shell_is_refused(line: str) -> None:
    with pytest.raises(InvalidError) as caught:
        split_words(line, ENVIRON, HERE)
    assert caught.value.hint


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), st.booleans())
def test_a_value_stays_one_word(value: str, quoted: bool) -> None:
    line = 'x "$V" y' if quoted else "x $V y"
    expected = ["x", value, "y"]
    if value == "" and not quoted:
        expected = ["x", "y"]
    assert split_words(line, {"V": value}, "/") == expected


@given(st.text(max_size=40))
def test_expansion_never_fails(line: str) -> None:
    assert isinstance(expand_names(line, {}), str)
