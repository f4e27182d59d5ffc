"""Reduced MPL by main.py: a teacher, its labels, and a student of these."""

import json

import pytest

from tests.command_line import refusal_of
from tests.integration.main_test import TINY, finish, start
from tests.readme_test import python_blocks


@pytest.mark.long
def test_a_teacher_its_labels_and_its_student(tmp_path, request):
    """Each stage in a process of its own; the later ones know their run."""
    teacher, student = tmp_path / "teacher", tmp_path / "student"

    def output_of(folder, *arguments):
        process = start(
            request.config.rootpath, f"--output_dir={folder}", *arguments
        )
        status, output, errors = finish(process)
        assert (status, errors) == (0, [])
        return output

    read = [flag for flag in TINY if not flag.startswith(("--mpl", "--uda"))]
    output_of(teacher, *read, "--method=supervised")
    assert output_of(teacher, "--task_mode=cache_labels").endswith(
        f"Cached: {teacher}/class_distributions.npz\n"
        f"For a student: --teacher_labels={teacher}\n"
    )
    output_of(student, *TINY, f"--teacher_labels={teacher}")
    table = output_of(student, "--task_mode=eval")
    words = [line.split()[0] for line in table.splitlines()]
    first = words.index("network") + 2
    networks = words[first : first + 2]
    assert networks == ["student", "student_raw"]
    assert list(json.loads((student / "eval.json").read_text())) == networks


@pytest.mark.long
def test_the_snippet_of_the_docs_trains():
    (snippet,) = python_blocks("docs/reduced_mpl.md")
    names = {}
    exec(snippet, names)
    assert int(names["learner"].step) == 2


def test_labels_that_are_not_there_are_named(tmp_path, main):
    """The command that makes them too; nothing is written."""
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    message = refusal_of(
        main, *TINY, f"--output_dir={student}", f"--teacher_labels={teacher}"
    )
    assert f"There is no {teacher}; make it with `mpl cache" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_labels_need_a_trained_run(tmp_path, main):
    message = refusal_of(
        main, "--task_mode=cache_labels", f"--output_dir={tmp_path}"
    )
    assert f"{tmp_path} holds no checkpoint: train there first" in message
    assert list(tmp_path.iterdir()) == []
