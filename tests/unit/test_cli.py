"""What every verb has: help that fits its line, examples, JSON where it reads, completions."""

import os

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from volgate.cli import command, listing, main

CHANGING = {
    "mount", "umount", "serve", "quota set", "volume create", "volume adopt", "volume delete", "refresh",
    "quarantine retry", "quarantine export", "quarantine drop", "snapshot delete",
    "control serve", "control token revoke",
}  # fmt: skip


def verbs(group=command, words=()):
    """Yield (words, command) of every verb, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        verb = group.get_command(context, name)
        yield (*words, name), verb
        if isinstance(verb, click.Group):
            yield from verbs(verb, (*words, name))


ALL = [" ".join(words) for words, _ in verbs()]
LEAVES = [" ".join(words) for words, verb in verbs() if not isinstance(verb, click.Group)]


def help_of(words):
    done = CliRunner().invoke(command, [*words.split(), "--help"], terminal_width=80)
    assert done.exit_code == 0, done.output
    return done.output


def test_there_are_all_verbs():
    assert len(LEAVES) == 45 and {"mount", "top", "config check", "volume adopt", "control token revoke"} <= set(LEAVES)


@pytest.mark.parametrize("words", LEAVES)
def test_each_verb_has_an_example_on_a_line_of_its_own(words):
    assert any(line.strip().startswith(("volgate " + words, "VOLGATE_")) for line in help_of(words).splitlines()[1:])


@pytest.mark.parametrize(
    "words", ["", "quota", "volume", "config", "quarantine", "snapshot", "control", "control token"]
)
def test_no_verb_is_described_by_half_a_sentence(words):
    listed = help_of(words).partition("Commands:\n")[2].splitlines()
    assert listed and not [line for line in listed if line.endswith("...")]


@pytest.mark.parametrize("words", [words for words in LEAVES if words not in CHANGING])
def test_what_reads_can_answer_in_json(words):
    assert "--json" in help_of(words)


@pytest.mark.parametrize(
    ("typed", "incomplete", "offered"),
    [
        ([], "um", {"umount"}),
        (["quota"], "", {"show", "set", "check"}),
        (["mount", "/srv"], "--qu", {"--quota"}),
        (["status"], "--", {"--json", "--help"}),
    ],
)
def test_a_shell_completes_verbs_and_flags(typed, incomplete, offered):
    completions = BashComplete(command, {}, "volgate", "_VOLGATE_COMPLETE").get_completions(typed, incomplete)
    assert {completion.value for completion in completions} == offered


def test_a_group_without_a_verb_shows_its_help_and_nothing_else(capsys):
    for words in ([], ["snapshot"], ["control", "token"]):
        assert main(words) == os.EX_USAGE
        said = capsys.readouterr()
        assert said.err.startswith(" ".join(["Usage: volgate", *words])) and "Commands:" in said.err
        assert said.out == "" and "see 'volgate" not in said.err


def test_status_says_that_nothing_is_mounted(monkeypatch, capsys):
    monkeypatch.setattr(listing, "find_all", list)
    assert main(["status"]) == 0
    said = capsys.readouterr()
    assert (said.out, "nothing is mounted" in said.err) == ("", True)
    assert main(["status", "--json"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("[]\n", "")


def test_a_verb_that_is_mistyped_is_guessed(capsys):
    for words, said in (
        (["qota"], "'qota'. Did you mean 'quota'?"),
        (["quota", "shwo"], "'shwo'. Did you mean 'show'?"),
    ):
        assert main(words) == os.EX_USAGE
        assert f"No such command {said}" in capsys.readouterr().err


def test_a_shell_completes_a_target_to_directories_where_nothing_is_mounted():
    (found,) = BashComplete(command, {}, "volgate", "_VOLGATE_COMPLETE").get_completions(["umount"], "/nothing/mounted")
    assert (found.type, found.value) == ("dir", "/nothing/mounted")
