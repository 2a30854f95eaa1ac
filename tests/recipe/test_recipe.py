"""The Recipe: names that flatten one way, values that are read as their field's type, and errors that help."""

import json
import subprocess
import sys
from itertools import permutations
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from cifar_tune import Recipe
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Value, explain, field_of, nearest

ADAM = Recipe(
    dataset="cifar10",
    model={"name": "resnet9", "dropout": 0.1},
    optimizer={"name": "adam", "lr": 0.01, "weight_decay": 1e-4},
    schedule={"name": "step", "every": 5},
    grad_clip={"name": "value", "limit": 0.1},
    epochs=8,
    batch_size=400,
)
UNIONS = {name: field for name, field in Recipe.model_fields.items() if field.discriminator}
VARIANTS = [
    (group, member.model_fields["name"].default)
    for group, field in UNIONS.items()
    for member in get_args(field.annotation)
]


def replaced(settings: dict[str, Value]) -> dict[str, Value]:
    """What differs from ADAM."""
    flat, before = ADAM.replace(settings).flatten(), ADAM.flatten()
    return {name: value for name, value in flat.items() if name not in before or before[name] != value}


def test_a_recipe_flattens_to_one_name_per_field() -> None:
    assert ADAM.flatten() == {
        "dataset": "cifar10",
        "num_classes": None,
        "image_size": 32,
        "model/name": "resnet9",
        "model/dropout": 0.1,
        "model/weights": "none",
        "model/width": 1.0,
        "model/whitening": False,
        "optimizer/name": "adam",
        "optimizer/lr": 0.01,
        "optimizer/weight_decay": 1e-4,
        "optimizer/decay_norms_and_biases": True,
        "optimizer/head_lr_scale": 1.0,
        "optimizer/beta1": 0.9,
        "optimizer/beta2": 0.999,
        "schedule/name": "step",
        "schedule/every": 5,
        "schedule/gamma": 0.5,
        "finetune/name": "scratch",
        "epochs": 8,
        "batch_size": 400,
        "augment/flip": True,
        "augment/crop_padding": 4,
        "augment/padding_mode": "reflect",
        "augment/trivial_augment": False,
        "augment/brightness": 0.0,
        "augment/contrast": 0.0,
        "augment/saturation": 0.0,
        "augment/hue": 0.0,
        "augment/rotation": 0.0,
        "augment/grayscale": 0.0,
        "augment/cutout": 0,
        "augment/erasing": 0.0,
        "scaling": "dataset",
        "label_smoothing": 0.0,
        "mixing/name": "none",
        "averaging/name": "none",
        "grad_clip/name": "value",
        "grad_clip/limit": 0.1,
        "early_stopping/name": "none",
        "train_images": None,
        "precision": "mixed",
        "seed": 0,
    }


def test_names_come_in_the_order_of_the_class() -> None:
    assert list(dict.fromkeys(name.split("/")[0] for name in ADAM.flatten())) == list(Recipe.model_fields)


def test_an_option_may_be_sampled_under_its_own_name_or_its_variants() -> None:
    carried = {name: value for name, value in ADAM.sampled_names().items() if name not in ADAM.flatten()}
    assert ADAM.sampled_names() == ADAM.flatten() | carried
    assert carried == {
        "model/resnet9/dropout": 0.1,
        "model/resnet9/weights": "none",
        "model/resnet9/width": 1.0,
        "model/resnet9/whitening": False,
        "optimizer/adam/lr": 0.01,
        "optimizer/adam/weight_decay": 1e-4,
        "optimizer/adam/decay_norms_and_biases": True,
        "optimizer/adam/head_lr_scale": 1.0,
        "optimizer/adam/beta1": 0.9,
        "optimizer/adam/beta2": 0.999,
        "schedule/step/every": 5,
        "schedule/step/gamma": 0.5,
        "grad_clip/value/limit": 0.1,
    }


def test_a_sampled_name_is_about_the_field_whose_value_it_has() -> None:
    flat = ADAM.flatten()
    assert {name: flat[field_of(name)] for name in ADAM.sampled_names()} == ADAM.sampled_names()


@pytest.mark.parametrize(
    ("sampled", "field"),
    [("optimizer/sgd/lr", "optimizer/lr"), ("optimizer/lr", "optimizer/lr"), ("epochs", "epochs")],
)
def test_the_field_of_a_sampled_name_leaves_the_variant_out(sampled: str, field: str) -> None:
    assert field_of(sampled) == field


def test_replacing_every_field_by_itself_changes_nothing() -> None:
    assert ADAM.replace(ADAM.flatten()) == ADAM
    assert ADAM.replace({name: str(value) for name, value in ADAM.flatten().items()}) == ADAM
    assert ADAM.replace({}) == ADAM


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"optimizer/lr": "0.02"}, {"optimizer/lr": 0.02}),
        ({"optimizer/lr": "2e-2"}, {"optimizer/lr": 0.02}),
        ({"optimizer/lr": 1}, {"optimizer/lr": 1.0}),
        ({"epochs": "3"}, {"epochs": 3}),
        ({"epochs": "3", "batch_size": 50}, {"epochs": 3, "batch_size": 50}),
        ({"augment/flip": "false"}, {"augment/flip": False}),
        ({"augment/flip": "0"}, {"augment/flip": False}),
        ({"train_images": "500"}, {"train_images": 500}),
        ({"scaling": "unit"}, {"scaling": "unit"}),
        ({"model/dropout": "0"}, {"model/dropout": 0.0}),
        ({"seed": "7"}, {"seed": 7}),
    ],
    ids=str,
)
def test_text_is_read_as_the_type_of_the_field(settings: dict[str, Value], changes: dict[str, Value]) -> None:
    assert replaced(settings) == changes
    for name, value in changes.items():
        assert type(ADAM.replace(settings).flatten()[name]) is type(value)


def test_a_choice_of_numbers_is_read_from_text() -> None:
    resnet50 = ADAM.replace({"model/name": "resnet50"})
    assert resnet50.replace({"model/image_size": "224"}).flatten()["model/image_size"] == 224
    with pytest.raises(UserError, match=r"^model/image_size=64 is not valid: .* should be 32 or 224\.$"):
        resnet50.replace({"model/image_size": "64"})


@pytest.mark.parametrize("text", ["none", "None", "null", "NONE"])
def test_none_is_none_where_the_field_may_be_none(text: str) -> None:
    assert ADAM.replace({"train_images": 500}).replace({"train_images": text}).train_images is None


def test_none_is_a_name_where_a_variant_is_called_that() -> None:
    recipe = ADAM.replace({"grad_clip/name": "none"})
    assert recipe.grad_clip.name == "none"
    assert "grad_clip/limit" not in recipe.flatten()


def test_the_original_stays_as_it_is() -> None:
    before = ADAM.model_copy(deep=True)
    ADAM.replace({"optimizer/lr": 1.0, "optimizer/name": "sgd"})
    assert before == ADAM


def test_a_changed_variant_keeps_the_options_that_both_have() -> None:
    recipe = ADAM.replace({"optimizer/name": "sgd"})
    assert recipe.optimizer.model_dump() == {
        "name": "sgd",
        "lr": 0.01,
        "weight_decay": 1e-4,
        "decay_norms_and_biases": True,
        "head_lr_scale": 1.0,
        "momentum": 0.9,
        "nesterov": False,
    }


@pytest.mark.parametrize("order", [1, -1])
def test_a_variant_and_its_options_are_set_together_in_any_order(order: int) -> None:
    settings = {"optimizer/momentum": "0.5", "optimizer/name": "sgd", "optimizer/lr": "0.1"}
    recipe = ADAM.replace(dict(list(settings.items())[::order]))
    assert recipe.replace(settings) == recipe
    assert {name: str(recipe.flatten()[name]) for name in settings} == settings


@pytest.mark.parametrize(("group", "name"), VARIANTS)
def test_every_variant_can_be_switched_to(group: str, name: str) -> None:
    recipe = ADAM.replace({f"{group}/name": name})
    assert recipe.flatten()[f"{group}/name"] == name
    shared = set(getattr(recipe, group).model_dump()) & set(getattr(ADAM, group).model_dump()) - {"name"}
    assert all(getattr(getattr(recipe, group), key) == getattr(getattr(ADAM, group), key) for key in shared)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer/lrr": 1}, r"^This recipe has no field 'optimizer/lrr'; the nearest is optimizer/lr "),
        ({"epoch": 1}, r"no field 'epoch'; the nearest is epochs"),
        ({"optimizer": "sgd"}, r"no field 'optimizer'; the nearest is optimizer/"),
        ({"optimizer/adam/lr": 1}, r"no field 'optimizer/adam/lr'; the nearest is optimizer/lr"),
        ({"optimizer/momentum": 0.5}, r"no field 'optimizer/momentum'"),
        ({"qqq": 1}, r"no field 'qqq'; choose one of dataset, num_classes, image_size, .*, seed\.$"),
        ({"optimizer/name": "adamm"}, r"^optimizer/name=adamm is not valid; the nearest is adam or adamw\.$"),
        ({"optimizer/name": "qqq"}, r"^optimizer/name=qqq is not valid; choose one of adam, adamw, sgd, muon\.$"),
        ({"optimizer/name": 3}, r"^optimizer/name=3 is not valid; choose one of adam, adamw, sgd, muon\.$"),
        ({"optimizer/lr": "fast"}, r"^optimizer/lr=fast is not valid: optimizer/lr: input should be a valid number"),
        ({"optimizer/lr": 0}, r"^optimizer/lr=0 is not valid: optimizer/lr: input should be greater than 0\.$"),
        ({"optimizer/lr": "nan"}, r"^optimizer/lr=nan is not valid: .*finite"),
        ({"model/dropout": 1}, r"^model/dropout=1 is not valid: model/dropout: input should be less than 1\.$"),
        ({"epochs": "2.5"}, r"^epochs=2\.5 is not valid: epochs: "),
        ({"epochs": "none"}, r"^epochs=none is not valid: epochs: "),
        ({"batch_size": 1}, r"^batch_size=1 is not valid: batch_size: input should be greater than or equal to 2\.$"),
        ({"augment/flip": "maybe"}, r"^augment/flip=maybe is not valid: augment/flip: "),
        ({"augment/padding_mode": "wrap"}, r"^augment/padding_mode=wrap is not valid: .*'reflect' or 'zero'\.$"),
        ({"train_images": "many"}, r"^train_images=many is not valid: train_images: "),
    ],
    ids=str,
)
def test_a_wrong_name_or_value_is_refused_with_the_nearest(settings: dict[str, Value], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        ADAM.replace(settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("group", "options"),
    [
        ("", {"epoch": 3}),
        ("model", {"name": "resnet9", "depth": 3}),
        ("model", {"name": "mini_resnet", "dropout": 0.2}),
        ("optimizer", {"name": "adam", "lr": 0.1, "momentum": 0.9}),
        ("schedule", {"name": "constant", "every": 3}),
        ("schedule", {"name": "quadratic"}),
        ("grad_clip", {"name": "none", "limit": 1.0}),
        ("augment", {"rotate": 10}),
        ("optimizer", {"lr": 0.1}),
        ("optimizer", {"name": "adam"}),
        ("optimizer", {"name": "sgd", "lr": float("nan")}),
        ("", {"label_smoothing": float("inf")}),
    ],
    ids=str,
)
def test_unknown_missing_and_endless_options_are_refused(group: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(ADAM.model_dump() | ({group: options} if group else options))


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        ADAM.epochs = 9  # type: ignore[misc]
    with pytest.raises(ValidationError):
        ADAM.optimizer.lr = 9.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("document", "clause"),
    [
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1"),
        ({"optimizer": {"name": "sgd", "lr": 0}}, "optimizer/lr: input should be greater than 0"),
        ({"augment": {"crop_padding": 17}}, "augment/crop_padding: input should be less than or equal to 16"),
        ({"grad_clip": {"name": "value", "limit": 0}}, "grad_clip/limit: input should be greater than 0"),
        (
            {"model": {"name": "resnet9", "heads": 2}},
            "model/heads is no field; the nearest is model/head or model/weights or model/name",
        ),
        (
            {"optimizer": {"name": "adam", "lr": 0.1, "momentum": 0.9}},
            "optimizer/momentum is no field of adam; the nearest is optimizer/beta2 or optimizer/beta1 or optimizer/lr",
        ),
    ],
    ids=str,
)
def test_what_pydantic_refuses_is_named_in_full_without_the_variant(document: dict[str, Any], clause: str) -> None:
    with pytest.raises(ValidationError) as error:
        Recipe.model_validate(ADAM.model_dump() | document)
    assert explain(error.value) == clause


@pytest.mark.parametrize(("group", "name"), VARIANTS)
def test_a_recipe_comes_back_from_json(group: str, name: str) -> None:
    recipe = ADAM.replace({f"{group}/name": name, "train_images": 500})
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


def test_a_recipe_that_version_0_1_stored_is_todays_with_the_defaults() -> None:
    document = ADAM.model_dump(mode="json")
    for name in ("decay_norms_and_biases", "head_lr_scale"):
        del document["optimizer"][name]
    assert Recipe.model_validate(document) == ADAM


def test_the_nearest_names_are_offered_or_all() -> None:
    assert nearest("optimizer/lrr", ["epochs", "optimizer/lr"]) == "the nearest is optimizer/lr"
    assert nearest("zzz", iter(["epochs", "seed"])) == "choose one of epochs, seed"


def test_importing_the_recipe_loads_no_torch() -> None:
    code = (
        "import sys, cifar_tune.recipe.recipe; print(sorted({'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What makes no sense together

RESNET50 = ADAM.replace({"model/name": "resnet50", "finetune/name": "full", "model/weights": "imagenet", "epochs": 20})
TWO_PHASE = RESNET50.replace({"finetune/name": "two-phase", "finetune/head_epochs": 10})
FROZEN = RESNET50.replace({"finetune/name": "frozen", "finetune/views": 2})
PLAIN: dict[str, Value] = {"augment/flip": False, "augment/crop_padding": 0}


@pytest.mark.parametrize(
    ("recipe", "settings", "reason"),
    [
        (
            RESNET50,
            {"finetune/name": "scratch"},
            "model/weights=imagenet has no use: finetune=scratch starts from random weights; choose full to train all",
        ),
        (ADAM, {"model/weights": "here.pth"}, r"model/weights=here\.pth has no use: finetune=scratch"),
        (
            TWO_PHASE,
            {"finetune/head_epochs": 20},
            "finetune/head_epochs has to leave at least one of the epochs to the second phase, but is 20 of 20",
        ),
        (TWO_PHASE, {"epochs": 1}, "finetune/head_epochs has to leave at least one .*, but is 1 of 1"),
        (FROZEN, PLAIN, "finetune/views: augment changes nothing, so all views of an image would be the same"),
        (TWO_PHASE.replace(PLAIN), {"finetune/views": 3}, "finetune/views: augment changes nothing"),
        (RESNET50, {"model/name": "resnet9"}, "model/weights: imagenet weights exist for resnet50 only; use none"),
        (
            ADAM.replace({"optimizer/name": "sgd", "optimizer/nesterov": True}),
            {"optimizer/momentum": 0},
            "optimizer: nesterov needs a momentum above 0",
        ),
    ],
    ids=str,
)
def test_options_that_make_no_sense_together_are_refused_with_the_reason(
    recipe: Recipe, settings: dict[str, Value], reason: str
) -> None:
    with pytest.raises(UserError, match=f"^The recipe makes no sense with this: {reason}") as error:
        recipe.replace(settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "document",
    [
        {"model": {"name": "resnet50"}},
        {"finetune": {"name": "two-phase", "head_epochs": 8}},
        {"finetune": {"name": "frozen", "views": 2}, "augment": {"flip": False, "crop_padding": 0}},
        {"model": {"name": "resnet9", "weights": "imagenet"}, "finetune": {"name": "full"}},
        {"optimizer": {"name": "sgd", "lr": 0.1, "nesterov": True, "momentum": 0.0}},
    ],
    ids=str,
)
def test_a_document_whose_options_make_no_sense_together_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(ADAM.model_dump() | document)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (RESNET50, {"finetune/name": "scratch", "model/weights": "none"}),
        (RESNET50, {"model/name": "resnet9", "model/weights": "none", "finetune/name": "scratch"}),
        (ADAM, {"model/name": "resnet50", "model/weights": "imagenet", "finetune/name": "frozen"}),
        (FROZEN, {**PLAIN, "finetune/views": "none"}),
        (ADAM.replace(PLAIN), {"finetune/name": "frozen", "finetune/views": "2", "augment/rotation": "5"}),
        (ADAM, {"finetune/name": "two-phase", "epochs": "30", "finetune/head_epochs": "29"}),
        (TWO_PHASE, {"epochs": 2, "finetune/head_epochs": 1}),
        (
            ADAM.replace({"optimizer/name": "sgd", "optimizer/nesterov": True}),
            {"optimizer/momentum": 0, "optimizer/nesterov": False},
        ),
        (
            ADAM.replace({"optimizer/name": "sgd", "optimizer/momentum": 0}),
            {"optimizer/nesterov": True, "optimizer/momentum": 0.9},
        ),
    ],
    ids=str,
)
def test_fields_that_only_fit_together_are_set_together_in_any_order(
    recipe: Recipe, settings: dict[str, Value]
) -> None:
    recipes = [recipe.replace(dict(order)) for order in permutations(settings.items())]
    assert all(each == recipes[0] for each in recipes)
    assert recipes[0] != recipe
    assert recipes[0].replace(settings) == recipes[0]
    assert settings.keys() <= recipes[0].flatten().keys()


# The epochs of the head


@pytest.mark.parametrize(
    ("epochs", "head_epochs"), [(20, 10), (40, 20), (30, 15), (10, 5), (4, 2), (3, 2), (2, 1), (100, 50)]
)
def test_changed_epochs_keep_the_heads_share_of_them(epochs: int, head_epochs: int) -> None:
    assert TWO_PHASE.replace({"epochs": epochs}).flatten()["finetune/head_epochs"] == head_epochs


@pytest.mark.parametrize(("head_epochs", "epochs", "kept"), [(19, 2, 1), (19, 10, 9), (1, 5, 1), (1, 2, 1)])
def test_each_phase_keeps_at_least_one_epoch(head_epochs: int, epochs: int, kept: int) -> None:
    recipe = TWO_PHASE.replace({"finetune/head_epochs": head_epochs}).replace({"epochs": epochs})
    assert recipe.flatten()["finetune/head_epochs"] == kept


@pytest.mark.parametrize("order", [1, -1])
def test_the_heads_epochs_are_those_that_are_set(order: int) -> None:
    settings: dict[str, Value] = {"epochs": 40, "finetune/head_epochs": 3}
    assert TWO_PHASE.replace(dict(list(settings.items())[::order])).flatten()["finetune/head_epochs"] == 3


def test_what_another_variant_has_is_passed_by_where_asked() -> None:
    settings: dict[str, Value] = {"finetune/head_epochs": 3, "optimizer/momentum": 0.5, "epochs": 9}
    assert ADAM.replace(settings, skip_unknown=True) == ADAM.replace({"epochs": 9})
    with pytest.raises(UserError, match="no field 'finetune/head_epochs'"):
        ADAM.replace(settings)


def test_replacing_every_field_of_a_two_phase_recipe_by_itself_changes_nothing() -> None:
    assert TWO_PHASE.replace(TWO_PHASE.flatten()) == TWO_PHASE
    assert FROZEN.replace({name: str(value) for name, value in FROZEN.flatten().items()}) == FROZEN
