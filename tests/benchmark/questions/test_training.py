"""Settings of a training: recipes, ids of older questions, and settings that contradict each other."""

from dataclasses import fields

import pytest
from pydantic import ValidationError

from benchmark.networks.losses import LOSSES
from benchmark.networks.optimization import Optimization
from benchmark.questions.recipes import RECIPES
from benchmark.questions.suite import Training


def test_settings_that_came_later_are_told_only_where_they_are_used():
    first = {
        "epochs": 30,
        "patience": 8,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "loss": "rate_mse",
    }
    assert Training().model_dump() == first
    assert Training(optimizer="sgd", momentum=0.9).model_dump() == {**first, "optimizer": "sgd"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_its_settings(name):
    training = Training(recipe=name)
    assert {key: getattr(training, key) for key in RECIPES[name].settings} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in RECIPES[name].settings.items()
    }
    assert training.loss in LOSSES
    assert Training.model_validate_json(training.model_dump_json()) == training
    assert Training(recipe=name, epochs=400).epochs == 400, "keys beside the recipe come before it"


def test_a_classifier_is_told_what_there_is_to_know():
    told = {"loss", "label_smoothing", *(setting.name for setting in fields(Optimization))}
    assert set(Training.model_fields) - told == {"epochs", "patience", "batch_size", "precision"}
    for setting in fields(Optimization):
        assert Training.model_fields[setting.name].default == setting.default, setting.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "kim2021"}, "did you mean 'kim2022'"),
        ({"recipe": ["sbc"]}, "unknown recipe"),
        ({"momentum": 0.5}, "momentum is one of sgd, and the optimizer is adam"),
        ({"epochs": 5, "warmup_epochs": 5}, "warm up for fewer"),
        ({"epochs": 5, "milestones": [5]}, "milestones are epochs between 0 .* and 5"),
        ({"epochs": 5, "milestones": [3, 2]}, "in rising order"),
        ({"epochs": 5, "warmup_epochs": 2, "milestones": [2]}, "between 2"),
        ({"label_smoothing": 1}, "label_smoothing"),
        ({"gradient_clip": 0}, "gradient_clip"),
        ({"precision": "fp8"}, "precision"),
        ({"optimizer": "lion"}, "optimizer"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Training(**settings)
