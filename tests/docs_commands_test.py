"""Commands that pages show: their words, flags, modules and targets exist."""

import importlib.util
import pathlib
import re
import shlex

import pytest
from absl import flags

from meta_pseudo_labels.run.cli import task_modes, usage
from meta_pseudo_labels.run.recipes import expand
from meta_pseudo_labels.utils.settings import ConfigError
from tests.command_line import defined

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "tpu" / "README.md",
    )
    if path.name != "CHANGELOG.md"
}
WORDS = {*task_modes(), "predict"}
# Words with a parser of their own, such as serve.
OTHERS = {*re.findall(r"^  (\w+)  ", usage(), re.MULTILINE)} - WORDS
_CODE = re.compile(
    r"^ *```(?:bash|sh)?\n(.*?)^ *```$|((?:^    .*\n)+)", re.M | re.S
)
_COMMAND = re.compile(
    r"^ *(?:until )?(mpl|python main\.py)( [^\n#|&;]*)", re.MULTILINE
)
_ASSIGNED = re.compile(r'^\s*\w+="((?:--|\$)[^"]*)"$', re.MULTILINE)


def commands(text):
    """What code of a page says to type: a program and its words, each."""
    for found in _CODE.finditer(text):
        code = (found[1] or found[2]).replace("\\\n", " ")
        for command in _COMMAND.finditer(code):
            yield command[1], shlex.split(command[2])
        for flags_alone in _ASSIGNED.findall(code):
            yield "python main.py", shlex.split(flags_alone)


def check(program, words):
    """Raises where a command would be refused before it reads anything."""
    words = [word for word in words if word != "..." and word[0] not in "<$"]
    if program == "mpl" and words and words[0] in OTHERS:
        return
    if program == "mpl" and words and not words[0].startswith("-"):
        assert words.pop(0) in WORDS
    values = defined()
    rest = values(["main.py", *expand([w for w in words if w != "--help"])])
    assert rest == ["main.py"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)  # Where flagfiles are named from.
    for program, words in commands(PAGES[page].read_text()):
        try:
            check(program, words)
        except (AssertionError, ConfigError, flags.Error) as error:
            pytest.fail(f"{page}: {program} {' '.join(words)}: {error}")


def test_commands_are_found():
    assert "serve" in OTHERS
    found = [
        command
        for page in PAGES.values()
        for command in commands(page.read_text())
    ]
    assert len(found) > 50
    text = "A\n\n    until mpl train \\\n        --recipe=a  # Why.\n\n"
    text += '```bash\np="--lr=1"\npython main.py $p &\n```\n'
    assert list(commands(text)) == [
        ("mpl", ["train", "--recipe=a"]),
        ("python main.py", ["$p"]),
        ("python main.py", ["--lr=1"]),
    ]


@pytest.mark.parametrize(
    "words",
    [["trian"], ["train", "--no_such_flag=1"], ["train", "--recipe=no"]],
)
def test_a_wrong_command_is_seen(words):
    with pytest.raises((AssertionError, ConfigError, flags.Error)):
        check("mpl", words)


def test_those_with_a_wheel_can_type_the_commands():
    """They have neither main.py nor the folder flags/."""
    for page, path in PAGES.items():
        if page.startswith("docs/") and page != "docs/command_line.md":
            text = path.read_text()
            assert not re.search(r"python (main|serve)\.py|--flagfile", text), (
                page
            )


def test_extras_that_are_named_exist():
    content = (ROOT / "pyproject.toml").read_text()
    section = content.split("[project.optional-dependencies]")[1]
    extras = {*re.findall(r"^(\w+) = \[", section.split("\n[")[0], re.M)}
    package = (ROOT / "meta_pseudo_labels").rglob("*.py")
    named = re.compile(r"(?:meta-pseudo-labels|')\[([\w,]+)\]'")
    for path in [*PAGES.values(), *package]:
        for names in named.findall(path.read_text()):
            assert {*names.split(",")} <= extras | {"{extra}"}, path
    page = PAGES["docs/command_line.md"].read_text()
    listed = {
        *re.findall(r"^\| `(\w+)` \|.*", page.split("| Command")[0], re.M)
    }
    assert listed == extras - {"benchmarks", "docs", "dev"}


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_targets_exist(page):
    text = PAGES[page].read_text()
    for module in re.findall(r"python -m ([\w.]+\w)", text):
        if module.split(".")[0] in (
            "benchmarks",
            "meta_pseudo_labels",
            "tests",
        ):
            assert importlib.util.find_spec(module), module
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^(?:    )?)make ([a-z-]+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
