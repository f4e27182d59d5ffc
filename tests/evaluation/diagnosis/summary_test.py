import numpy as np
import pytest

from meta_pseudo_labels.evaluation.diagnosis import as_text
from meta_pseudo_labels.evaluation.diagnosis.summary import _ranks, summarize

SETTINGS = {
    "learning_rate": 0.1,
    "start_step": 600,
    "draws": 2,
    "held_out_images": 500,
    "held_out_loss": 1.0,
    "held_out_loss_inference": 2.0,
    "teacher_step": 1e-3,
}


def row(
    *, h, losses, measured=-1.0, variance=1.0, squared_norm=2.0, cosine=0.1
):
    def drawn(scale):
        return {
            "norm_ratio": 0.5,
            "cosine_one_draw": cosine,
            "cosine_mean": 2 * cosine,
            "variance": variance,
            "squared_norm_of_mean": squared_norm,
            "h": [scale * value for value in h],
        }

    return {
        "unlabeled": 10,
        "exact_squared_norm": 50.0,
        "held_out_losses": [[loss, 2.0] for loss in losses],
        "estimators": {
            "exact": {
                "norm_ratio": 0.25,
                "cosine_one_draw": 1.0,
                "cosine_mean": 1.0,
            },
            "reinforce_dot_product": drawn(0.5),
            "reinforce_cosine": drawn(1.0),
            "reinforce_per_example": drawn(1.0),
            "off": {"norm_ratio": 0.0},
        },
        "teacher_steps": {
            "exact": {
                "predicted": -1.0,
                "measured": measured,
                "held_out": 0.5,
                "held_out_inference": 0.25,
            }
        },
    }


MEANS = ("reinforce_dot_product", "reinforce_cosine")

# h rises with the fall, 1 - loss, in the first batch and not in the second.
ROWS = [
    row(h=[1.0, 2.0], losses=[0.9, 0.8], measured=-1.0),
    row(h=[3.0, 5.0], losses=[0.6, 0.7], measured=3.0),
]


@pytest.fixture
def found():
    return summarize(SETTINGS, ROWS, means=MEANS)


def test_noise_by_hand(found):
    """Variance 1 and a squared norm of 2, in two batches, of two draws."""
    estimators = found["estimators"]
    for name, scale in (
        ("reinforce_per_example", 1),
        ("reinforce_dot_product", 10**2),  # A mean over ten images.
        ("reinforce_cosine", (10 * 0.5) ** 2),  # Whose h are twice as large.
    ):
        assert estimators[name]["noise"] == pytest.approx(scale * 2 / 100)
        # Half of the variance is in the mean of two.
        assert estimators[name]["noise_to_own_mean"] == pytest.approx(1 / 1.5)


def test_a_mean_of_noise_alone_has_no_ratio():
    rows = [row(h=[1, 2], losses=[1, 1], variance=4.0, squared_norm=2.0)]
    numbers = summarize(SETTINGS, rows)["estimators"]["reinforce_per_example"]
    assert numbers["noise_to_own_mean"] is None
    assert numbers["noise"] == pytest.approx(4 / 50)


def test_correlations_by_hand(found):
    numbers = found["estimators"]["reinforce_per_example"]
    h, falls = [1, 2, 3, 5], [0.1, 0.2, 0.4, 0.3]
    assert numbers["pearson"] == pytest.approx(np.corrcoef(h, falls)[0, 1])
    assert numbers["spearman"] == pytest.approx(0.8)
    # -.5, .5, -1, 1 and -.05, .05, .05, -.05.
    assert numbers["pearson_within"] == pytest.approx(
        (0.05 - 0.1) / np.sqrt(2.5 * 0.01)
    )
    assert numbers["pearson_inference"] is None  # That loss never moved.


def test_ranks_of_equal_values_are_their_mean_place():
    assert _ranks(np.array([[10, 20], [20, 5]])).tolist() == [
        [2, 3.5],
        [3.5, 1],
    ]


def test_steps_of_the_teacher_by_hand(found):
    assert found["teacher_steps"] == {
        "exact": {
            "predicted": -1.0,
            "measured": 1.0,
            "held_out": 0.5,
            "held_out_inference": 0.25,
            "measured_error": pytest.approx(2.0),
            "held_out_error": 0.0,
            "lowered": 0.5,
        }
    }


def test_one_batch_has_no_standard_error():
    one = summarize(SETTINGS, ROWS[:1])
    assert one["teacher_steps"]["exact"]["measured_error"] is None
    assert one["estimators"]["exact"]["cosine_mean_error"] is None
    assert "±" not in as_text(one).partition("norm ratio  ")[0]


def test_the_error_of_a_cosine_is_that_of_its_mean_over_batches():
    rows = [
        row(h=[1, 2], losses=[1, 1], cosine=cosine)
        for cosine in (0.1, 0.2, 0.6)
    ]
    numbers = summarize(SETTINGS, rows)["estimators"]["reinforce_cosine"]
    # Squares of 0.2, 0.1 and 0.3 over two; that over three batches.
    error = np.sqrt(0.14 / 2 / 3)
    assert numbers["cosine_one_draw"] == pytest.approx(0.3)
    assert numbers["cosine_one_draw_error"] == pytest.approx(error)
    assert numbers["cosine_mean_error"] == pytest.approx(2 * error)


def test_text_has_a_row_for_each_and_blanks_for_what_is_not_known(found):
    lines = as_text(found).splitlines()
    assert lines[0].startswith("step 600: 2 batches, 2 draws")
    assert "rate of the student's step 0.1" in lines[0]
    assert lines[1].startswith("held-out loss 1.0000 on 500 other images, ")
    kept = found["settings"] | {"held_out_part": "validation"}
    text = as_text(found | {"settings": kept})
    assert " on 500 validation images, " in text
    tables = "\n".join(lines).split("\n\n")[1:3]
    estimators, moves = (
        {line.split("  ")[0]: line.split() for line in text.splitlines()[2:]}
        for text in tables
    )
    assert list(estimators) == list(ROWS[0]["estimators"])
    assert " ".join(estimators["exact"]) == (
        "exact 0.25 1.000 ± 0.000 1.000 ± 0.000"
    )
    assert estimators["off"] == ["off", "0"]
    assert " ".join(estimators["reinforce_cosine"][1:9]) == (
        "0.5 0.100 ± 0.000 0.200 ± 0.000 0.5"
    )
    assert " ".join(moves["exact"]) == (
        "exact -1e+06 1000000 ± 2000000 500000.000 ± 0.000"
    )
    assert "nan" not in as_text(found) and "None" not in as_text(found)


def test_the_tables_fit_a_terminal(found):
    assert max(map(len, as_text(found).splitlines())) <= 100
