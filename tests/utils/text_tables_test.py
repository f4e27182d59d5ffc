import pytest

from meta_pseudo_labels.utils.text_tables import text_table, with_error


def test_a_table_in_a_terminal():
    rows = [
        {
            "method": "supervised",
            "labels": 40,
            "test_accuracy": 0.906,
            "seconds": 31.4,
        },
        {"method": "mpl", "labels": 40, "test_accuracy": 1.0, "note": "best"},
    ]
    assert text_table(rows).splitlines() == [
        "method      labels  test accuracy  seconds  note",
        "----------  ------  -------------  -------  ----",
        "supervised      40          90.6%       31",
        "mpl             40         100.0%           best",
    ]


def test_a_row_of_a_table_is_a_line():
    rows = [{"name": "two\nlines\r", "n": 1}, {"name": "one", "n": 2}]
    table = text_table(rows).splitlines()
    assert table[2:] == ["two lines  1", "one        2"]


def test_columns_of_texts_to_the_right():
    rows = [{"a": "x", "b": "1 ± 1"}, {"a": "yy", "b": "22 ± 11"}]
    table = text_table(rows, to_the_right={"b"})
    assert table.splitlines()[2:] == ["x     1 ± 1", "yy  22 ± 11"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-2743.4, 208.7, "-2743 ± 209"),
        (0.0713, 0.0213, "0.071 ± 0.021"),
        (-0.57, 0.104, "-0.57 ± 0.10"),
        (1.0, 1e-9, "1.000 ± 0.000"),
        (0.5, 0.0, "0.500 ± 0.000"),
        (0.12345, None, "0.123"),
        (None, None, ""),
    ],
)
def test_an_error_says_how_many_digits_a_value_has(value, error, text):
    assert with_error(value, error) == text
