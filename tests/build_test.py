"""Learners from settings; that settings arrive, experiment_test.py shows."""

from meta_pseudo_labels import models
from meta_pseudo_labels.build import build_learner, build_schedules
from meta_pseudo_labels.data import DATASETS
from tests.tiny_run import tiny


def test_mpl_has_rates_of_its_own(tmp_path):
    """Quirk 21: it ignores lr and num_warmup_steps, which the others take."""

    def peaks(method, **settings):
        config = tiny(tmp_path, method=method, train_batch_size=64, **settings)
        schedules = build_schedules(config)
        return [(s.peak, s.warmup_steps, s.wait_steps) for s in schedules]

    rates = dict(mpl_student_lr=0.4, mpl_teacher_lr=0.8)
    common = dict(lr=1.6, num_warmup_steps=3)
    for method in ("supervised", "uda"):
        assert peaks(method, **common, **rates) == [(0.4, 3, 0)]
    # The run's own settings are one step of warm-up, and one of waiting.
    assert peaks("mpl", **common, **rates) == [(0.1, 1, 1), (0.2, 1, 0)]


def test_memory_is_traded_where_the_settings_say_so(tmp_path):
    spec = DATASETS["digits"]
    settings = dict(model_type="wrn-10-1", remat=True, batch_slices=2)
    learner = build_learner(tiny(tmp_path, **settings), spec)
    assert learner.batch_slices == 2
    for network in (learner.student, learner.teacher):
        assert isinstance(network, models.Rematerialized)
    plain = build_learner(tiny(tmp_path), spec)
    assert plain.batch_slices == 1
    assert not isinstance(plain.student, models.Rematerialized)
