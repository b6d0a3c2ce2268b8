"""Campaign files with a grid: which campaigns they are, what is refused, and how they are shown."""

import io
import json

import pytest
from rich.console import Console

from cluster.campaign_grid import expand
from cluster.inputs import read_campaign_file
from cluster.runs.grid_display import GridDisplay
from cluster.runs.progress import Tally
from enumerator.errors import InputError
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape


def requests(tmp_path, text, **options):
    (tmp_path / "grid.toml").write_text(text)
    return expand(read_campaign_file(tmp_path / "grid.toml"), tmp_path, options)


def test_every_combination_in_order(tmp_path):
    found = requests(
        tmp_path,
        """
        starts = 20
        dimension = 50
        [grid]
        teachers = [3, 4]
        students = ["teachers", "teachers + 1"]
        dynamics = ["gradient-flow", "newton"]
        """,
    )
    law = InitialLaw(50)
    expected = [
        Campaign(Landscape(students, teachers), Dynamics(name), law)
        for teachers, students in ((3, 3), (3, 4), (4, 4), (4, 5))
        for name in ("gradient-flow", "newton")
    ]
    assert [wanted.campaign.id for wanted in found] == [campaign.id for campaign in expected]
    assert {wanted.starts for wanted in found} == {20}


def test_dimension_follows_the_teachers(tmp_path):
    found = requests(tmp_path, 'students = 2\n[grid]\nteachers = [3, 5]\ndimension = "teachers+2"\n')
    assert [wanted.campaign.law.dimension for wanted in found] == [5, 7]


def test_grids_are_put_together_and_each_campaign_comes_once(tmp_path):
    text = """
        students = 3
        teachers = 3
        [[grid]]
        activation = ["relu", "erf"]
        [[grid]]
        activation = ["leaky_relu", "relu"]
        activation_slope = [0.2]
        """
    with pytest.raises(InputError, match=r"grid, at activation = relu, activation_slope = 0\.2: "):
        requests(tmp_path, text)
    found = requests(tmp_path, text.replace('["leaky_relu", "relu"]', '["leaky_relu"]') + "[[grid]]\nseed = [0, 1]")
    names = [(wanted.campaign.landscape.activation, wanted.campaign.seed) for wanted in found]
    assert names == [("relu", 0), ("erf", 0), ("leaky_relu", 0), ("relu", 1)]


def test_options_win(tmp_path):
    found = requests(tmp_path, "students = 3\n[grid]\nteachers = [3, 4]\nseed = [0, 1]\n", teachers=2, starts=7)
    assert [(wanted.campaign.landscape.teachers, wanted.starts) for wanted in found] == [(2, 7), (2, 7)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[grid]\nstudnets = [3]\n", "unknown setting `studnets`: did you mean `students`"),
        ("[grid]\nstudents = 3\n", "`grid`"),
        ("[grid]\nstudents = []\n", "`students` must be a list of values"),
        ('[grid]\nstudents = ["twice"]\nteachers = [3]\n', '"teachers" or "teachers \\+ 1"'),
        ('[grid]\nstudents = ["teachers"]\n', "`students` follows the teachers: give `teachers` too"),
        ("[grid]\nstudents = [3]\n", "`teachers` is missing"),
        ("[grid]\nstudents = [3]\nteachers = [0]\n", "grid: `teachers`: 0 is less than the minimum of 1"),
        (
            "[grid]\nstudents = [3]\nteachers = [3]\ndimension = [2]\n",
            "grid, at students = 3, teachers = 3, dimension = 2",
        ),
        ("[grid]\n", "grid"),
    ],
)
def test_what_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        requests(tmp_path, text)


def test_one_table_of_progress(tmp_path):
    found = requests(tmp_path, "starts = 10\nstudents = 3\n[grid]\nteachers = [3, 4, 5]\n")
    grid = GridDisplay("bar", [(f"M={wanted.campaign.landscape.teachers}", wanted) for wanted in found])
    first = grid.display(0)
    first.show(Tally(10, 5, 5, 2, 1))
    grid.display(1)
    grid.finished(0, Tally(10, 10, 10, 3, 1))
    console = Console(file=io.StringIO(), width=80)
    console.print(grid.table())
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[1] == ["M=3", "10", "of", "10", "3", "1", "done"]
    assert lines[2] == ["M=4", "0", "of", "10", "0", "0", "starting"]
    assert lines[3] == ["M=5", "0", "of", "10", "waiting"]


def test_lines_name_the_campaign(tmp_path, capsys):
    found = requests(tmp_path, "students = 3\n[grid]\nteachers = [3, 4]\n")
    with GridDisplay("lines", [("a", found[0]), ("b", found[1])]) as grid:
        grid.display(1).show(Tally(10))
        grid.finished(1, Tally(10, 10, 0, 2))
    assert capsys.readouterr().err == "2/2 b: 10 of 10 starts, 2 distinct minima\n"


def test_for_machines_each_campaign_tells_where_it_ended_also_if_nothing_was_missing(tmp_path, capsys):
    found = requests(tmp_path, "students = 3\n[grid]\nteachers = [3, 4]\n")
    with GridDisplay("json", [("a", found[0]), ("b", found[1])]) as grid:
        grid.display(0)
        grid.finished(0, Tally(10, 10, 0, 2))
        shown = grid.display(1)
        shown.close(Tally(10, 10, 10, 3))
        grid.finished(1, Tally(10, 10, 10, 3))
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["campaign_id"], line["done"]) for line in told] == [(wanted.campaign.id, 10) for wanted in found]
