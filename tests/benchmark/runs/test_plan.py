"""A plan counts what is left, and judges it by the right records."""

from benchmark.questions.suite import FineTuning, NamedNetwork, Question
from benchmark.runs.plan import plan, show
from tests.benchmark.factory import make_failed, make_record, make_suite_records


def version(question: Question) -> int:
    return 1


def planned(questions, records, version=version):
    return plan("suite", questions, records, version)


def test_without_records_everything_is_to_do_and_nothing_is_known():
    questions = [record.question for record in make_suite_records(seeds=(0, 1))]
    ahead = planned(questions, [])
    assert ahead.to_do == ahead.unknown == len(questions) == 2 * (1 + 4 * 5)
    assert ahead.networks_to_train == 2
    assert ahead.training_seconds is ahead.memory_bytes is None
    assert "no earlier record to judge by" in show(ahead)


def test_what_is_finished_is_not_to_do():
    records = make_suite_records(seeds=(0,))
    ahead = planned([record.question for record in records], records)
    assert ahead.to_do == ahead.seconds == ahead.networks_to_train == 0
    assert "0 of 21 runs to do" in show(ahead)


def test_a_record_counts_whatever_the_order_of_its_options():
    """Records are stored with their keys sorted, suites are written as people like."""
    record = make_record(model={"name": "conv", "width": 8, "hidden": 4})
    asked = record.question.model_copy(
        update={"model": NamedNetwork.model_validate({"name": "conv", "width": 8, "hidden": 4})}
    )
    assert list(record.question.model.options) != list(asked.model.options)
    ahead = planned([asked], [record])
    assert ahead.to_do == ahead.networks_to_train == 0


def test_failed_runs_and_those_of_another_version_are_to_do_again():
    failed, old = make_failed("obc", 0.5), make_record("obc", 0.2)
    questions = [failed.question, old.question]
    assert planned(questions, [failed, old]).to_do == 1
    assert planned(questions, [failed, old], version=lambda question: 2).to_do == 2


def test_time_is_the_median_of_the_same_work_and_memory_the_most():
    earlier = [
        make_record("obc", 0.5, seed, seconds={"fit": fit, "test": 1.0, "compress": 99.0}, peak_memory_bytes=memory)
        for seed, fit, memory in ((0, 2.0, 10), (1, 4.0, 30), (2, 60.0, 20))
    ]
    other = make_record("obc", 0.5, model="mlp", seconds={"fit": 1e6, "test": 0.0}, peak_memory_bytes=10**12)
    asked = [make_record("obc", 0.1, seed).question for seed in (0, 1)]
    ahead = planned(asked, [*earlier, other])
    assert ahead.seconds == 2 * 5.0
    assert ahead.memory_bytes == 30
    assert ahead.unknown == 0


def test_records_that_do_not_tell_their_memory_are_no_estimate_of_it():
    ahead = planned([make_record("obc", 0.1).question], [make_record("obc", 0.5)])
    assert ahead.seconds > 0
    assert ahead.memory_bytes is None


def test_other_options_of_the_same_method_are_judged_by_only_without_better():
    like, unlike = {"name": "obc", "damping": 0.1}, {"name": "obc", "damping": 0.2}
    rough = make_record(unlike, 0.5, seconds={"fit": 7.0, "test": 0.0})
    exact = make_record(like, 0.5, seconds={"fit": 3.0, "test": 0.0})
    asked = [make_record(like, 0.1).question]
    assert planned(asked, [rough]).seconds == 7
    assert planned(asked, [rough, exact]).seconds == 3


def test_fine_tuning_is_not_judged_by_runs_without_it_nor_by_other_epochs():
    tuned = {epochs: {"finetuning": FineTuning(epochs=epochs)} for epochs in (2, 20)}
    bare = make_record("obc", 0.5, seconds={"fit": 1.0, "test": 0.0})
    short = make_record("obc", 0.5, asked=tuned[2], seconds={"fit": 60.0, "test": 0.0})
    (few,) = planned([make_record("obc", 0.2, asked=tuned[2]).question], [bare, short]).steps
    (many,) = planned([make_record("obc", 0.2, asked=tuned[20]).question], [bare, short]).steps
    assert few.seconds == 60.0
    assert many.seconds is None


def test_networks_of_other_seeds_tell_how_long_training_takes():
    earlier, asked = make_record(seed=0), make_record("magnitude", 0.5, seed=1).question
    ahead = planned([asked], [earlier])
    assert ahead.networks_to_train == 1
    assert ahead.training_seconds == earlier.dense.seconds


def test_several_jobs_share_the_time_and_add_their_memory():
    earlier = make_record("obc", 0.5, seconds={"fit": 600.0, "test": 0.0}, peak_memory_bytes=2**30)
    ahead = planned([make_record("obc", density).question for density in (0.1, 0.2)], [earlier])
    assert "about 20.0 min; memory up to 1 GiB" in show(ahead)
    assert "about 10.0 min in 2 processes; memory up to 2 GiB" in show(ahead, jobs=2)
