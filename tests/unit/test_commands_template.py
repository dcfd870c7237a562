"""The Go templates of --format."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.record import Method
from pydock_core.commands.template import Template
from pydock_core.errors import InvalidError

DATA = {
    "Name": "web",
    "State": {"Status": "running", "Pid": 7, "Running": True, "Error": ""},
    "Args": ["a", "b"],
    "Config": {"Labels": {"x": "1", "y": "2"}},
    "None": None,
    "Empty": [],
    "Unsorted": {"b": 1, "a": 2},
    "Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "81/tcp": None},
    "Label": Method(lambda key: f"<{key}>"),
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "web"),
        ("{{.State.Status}}\\t{{.State.Pid}}", "running\t7"),
        ("{{json .Args}}", '["a","b"]'),
        ("{{.Args | json}}", '["a","b"]'),
        ('{{.Name | upper | printf "<%s>"}}', "<WEB>"),
        ('{{join .Args ","}}', "a,b"),
        ('{{index .Config.Labels "x"}}', "1"),
        ("{{index .Args 1}}", "b"),
        ("{{len .Args}}", "2"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ('{{if .State.Error}}bad{{else if eq .Name "web"}}web{{else}}other{{end}}', "web"),
        ("{{if and .State.Running (not .State.Error)}}fine{{end}}", "fine"),
        ("{{range .Args}}[{{.}}]{{end}}", "[a][b]"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}} {{end}}", "0=a 1=b "),
        ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}};{{end}}", "x:1;y:2;"),
        ("{{range .Empty}}x{{else}}nothing{{end}}", "nothing"),
        ("{{with .State}}{{.Status}} of {{$.Name}}{{end}}", "running of web"),
        ("{{$n := .Name}}{{$n}}", "web"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* comment */}}x", "x"),
        ("{{.None}}", "<no value>"),
        ("{{.Args}}", "[a b]"),
        ("{{.Config.Labels}}", "map[x:1 y:2]"),
        ("{{.State.Running}}", "true"),
        ("{{println .Name 1}}", "web 1\n"),
        ('{{printf "%-5s|%d" .Name .State.Pid}}', "web  |7"),
        ("{{(index .Args 0)}}", "a"),
        ('{{split "a:b" ":"}}', "[a b]"),
        ('{{printf "%.2s|%03d|%.1f|%x|%t" .Name .State.Pid 1.25 255 .State.Running}}', "we|007|1.2|ff|true"),
        ("{{slice .Name 0 2}}|{{slice .Name 1}}|{{slice .Args 1 2}}|{{slice .Name}}", "we|eb|[b]|web"),
        (r'{{.Name}}{{"\n"}}\n', "web\n\n"),
        (r'{{join .Args "\n"}}', "a\nb"),
        (r'{{printf "%s\t%d" .Name .State.Pid}}', "web\t7"),
        (r"""{{"a\"b\\n\x41\u00e4"}}|{{`\n`}}""", 'a"b\\nA\u00e4|\\n'),
        ("{{range $k, $v := .Unsorted}}{{$k}}{{$v}}{{end}}", "a2b1"),
        ("no action", "no action"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        (
            '{{with index .Ports "80/tcp"}}{{(index . 0).HostIp}}:{{(index . 0).HostPort}}{{end}}',
            "127.0.0.1:8080",
        ),
        (
            "{{range $p, $b := .Ports}}{{if $b}}{{$p}}->{{(index $b 0).HostPort}} {{end}}{{end}}",
            "80/tcp->8080 ",
        ),
        ("{{(.State).Status}}|{{(index . `State`).Status | upper}}|{{(.).State.Pid}}", "running|RUNNING|7"),
        ("{{print (index .Args 0) .Name}}", "aweb"),
        ("{{$n := .State}}{{($n).Pid}}", "7"),
        ("{{$f := true}}{{range .Args}}{{if $f}}{{$f = false}}{{else}}, {{end}}{{.}}{{end}}", "a, b"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{with $s := .State}}{{$s.Status}}{{.Pid}}{{end}}", "running7"),
        ("{{if $n := .Name}}{{$n}}{{end}}", "web"),
        ("{{with .None}}x{{else with .Name}}{{.}}{{end}}", "web"),
        ("{{range .Args}}{{if eq . `b`}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{range .Args}}{{if eq . `a`}}{{continue}}{{end}}{{.}}{{end}}", "b"),
        ("{{if and .Empty (index .Empty 0)}}x{{else}}none{{end}}", "none"),
        ("{{or .Name (index .Empty 0)}}|{{and .Name .State.Pid}}", "web|7"),
        ('{{.Label "a.b"}}|{{"k" | .Label}}|{{if eq (.Label "x") "<x>"}}yes{{end}}', "<a.b>|<k>|yes"),
        ('{{"}}"}}{{/* a "quote */}}|{{printf "{{%s}}" .Name}}', "}}|{{web}}"),
        ("a {{-\n.Name\t-}} b", "awebb"),
        ('{{print 1 2 "x" 3}}|{{printf "%X %o %e %+v" 255 8 1.5 .Name}}', "1 2x3|FF 10 1.500000e+00 web"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert Template(template).render(DATA) == text


def test_a_null_is_printed_as_the_type_that_go_knows() -> None:
    config = dict.fromkeys(("Entrypoint", "Labels", "Healthcheck", "ExposedPorts"))
    template = Template(
        "{{.Entrypoint}}|{{.Labels}}|{{.Healthcheck}}|{{json .ExposedPorts}}|{{if .Labels}}x{{else}}none{{end}}|"
        '{{len .Entrypoint}}|{{join .Entrypoint ","}}|{{range .Entrypoint}}x{{end}}|{{eq .Healthcheck nil}}|{{json .}}'
    )
    assert template.render(config) == (
        '[]|map[]|<nil>|null|none|0|||true|{"Entrypoint":null,"Labels":null,"Healthcheck":null,"ExposedPorts":null}'
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{.Name",
        "{{.Missing}}",
        "{{end}}",
        "{{if .Name}}",
        "{{frobnicate .Name}}",
        "{{.Name.Deep}}",
        "{{index .Args 9}}x",
        "{{.Name | .Name}}",
        "{{}}",
        "{{$x}}",
        "{{(.Name}}",
        "{{len 1}}",
        "{{range .State.Pid}}x{{end}}",
        "{{range .State.Running}}x{{end}}",
        '{{printf "%d %d" 1}}',
        r'{{"\q"}}',
        '{{"two\nlines"}}',
        "{{pad .Name 1000000000000000 1}}",
        "{{(index .Args 0).Name}}",
        '{{(index .Ports "80/tcp") 0.HostPort}}',
        "{{(index .Args 0) .Name}}",
        "{{index .Args -1}}",
        "{{break}}",
        "{{range .Args}}{{else}}{{continue}}{{end}}",
        "{{.Label}}",
        '{{.Name "x"}}',
        "{{$x = 1}}",
        "{{if $a, $b := .Args}}{{end}}",
        "{{if .Name}}{{else iffy}}{{end}}",
        "{{if true}}{{$y := 1}}{{end}}{{$y}}",
        "{{and}}",
    ],
)
def test_bad_templates_are_refused(template: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Template(template).render(DATA)
    assert "--format" in caught.value.message


@given(st.text(alphabet='{}.|$ abN"()-=:/*\\\n0', max_size=30))
def test_any_text_renders_or_is_refused(text: str) -> None:
    with suppress(InvalidError):
        assert isinstance(Template(text).render(DATA), str)


def test_an_unknown_function_is_told_the_known_ones() -> None:
    with pytest.raises(InvalidError) as caught:
        Template("{{frob .Name}}").render(DATA)
    assert "function 'frob' is not defined" in caught.value.message
    assert caught.value.hint.startswith("there are and, eq, ")


@pytest.mark.parametrize("bounds", ["0 4", "2 1", "4", "0 1 2 3"])
def test_a_slice_out_of_range_is_an_error(bounds: str) -> None:
    with pytest.raises(InvalidError, match="slice: "):
        Template(f"{{{{slice .Name {bounds}}}}}").render(DATA)


@pytest.mark.parametrize(
    ("template", "hint"),
    [
        ("{{.Nope", "each {{ needs its }}"),
        ("{{if .Id}}x", "its {{end}}"),
        ("{{json (.Id}}", "each ( needs its )"),
    ],
)
def test_an_open_bracket_is_what_the_hint_is_about(template: str, hint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Template(template).render({"Id": "x"})
    assert hint in caught.value.hint
