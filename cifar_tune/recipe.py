"""A Recipe: everything that decides what a training run gives, and nothing else. Importing this loads no torch.

Names flatten with `/` and are the same in Optuna, MLflow, the report and `--set`: `optimizer/lr`. Where a space
samples a range that depends on the variant, the sampled name carries it: `optimizer/sgd/lr`.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError

from cifar_tune.augment import Augment, Scaling
from cifar_tune.errors import UserError
from cifar_tune.images import DatasetName
from cifar_tune.models import Model
from cifar_tune.optimizers import GradClip, NoClipping, Optimizer
from cifar_tune.options import Count, Options, Share
from cifar_tune.schedules import Schedule

Value = str | int | float | bool | None


class Recipe(Options):
    """One training run. The same Recipe on the same CPU with the same thread count gives the same metrics.

    `epochs` is the total. `train_images` takes a stratified part of the training split (None: all of it).
    `precision` "mixed" is bfloat16 autocast on a GPU and float32 on a CPU.
    """

    dataset: DatasetName
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    epochs: Count
    batch_size: int = Field(ge=2)
    augment: Augment = Augment()
    scaling: Scaling = "dataset"
    label_smoothing: Share = 0.0
    grad_clip: GradClip = NoClipping()
    train_images: Count | None = None
    precision: Literal["mixed", "float32"] = "mixed"
    seed: int = Field(0, ge=0)

    def flatten(self) -> dict[str, Value]:
        """Every field by its full name, in the order of the class: `{"dataset": …, "model/name": …}`."""
        return dict(_flatten(self.model_dump()))

    def sampled_names(self) -> dict[str, Value]:
        """The value of every name a space may sample it under: `optimizer/lr` and `optimizer/adam/lr`."""
        flat = self.flatten()
        carried = {
            f"{group}/{flat[f'{group}/name']}/{option}": value
            for (group, _, option), value in ((name.partition("/"), value) for name, value in flat.items())
            if f"{group}/name" in flat and option != "name"
        }
        return flat | carried

    def replace(self, settings: Mapping[str, Value]) -> Self:
        """A copy with fields set by their full names; text is read as the field's type.

        A changed variant (`optimizer/name`) keeps the options that the new variant has too. An unknown name or value
        raises a UserError with the nearest valid ones.
        """
        recipe = self
        for name, value in sorted(settings.items(), key=lambda item: not item[0].endswith("/name")):
            recipe = recipe._replace_field(name, value)
        return recipe

    def _replace_field(self, name: str, value: Value) -> Self:
        flat = self.flatten()
        if name not in flat:
            raise UserError(f"This recipe has no field {name!r}; {nearest(name, flat)}.")
        document = self.model_dump()
        group, _, option = name.rpartition("/")
        if option == "name":
            document[group] = _switch_variant(group, document[group], value)
        errors = []
        for reading in _readings(value):
            changed = {group: {**document[group], option: reading}} if group else {option: reading}
            try:
                return self.model_validate(document | changed)
            except ValidationError as error:
                errors.append(error)
        raise UserError(f"{name}={value} is not valid: {explain(errors[0])}.") from None


def field_of(sampled_name: str) -> str:
    """The Recipe's field that a sampled name is about: `optimizer/lr` for `optimizer/sgd/lr`."""
    parts = sampled_name.split("/")
    return f"{parts[0]}/{parts[-1]}" if len(parts) == 3 else sampled_name


def nearest(name: str, choices: Iterable[str]) -> str:
    """Half a sentence: the valid names most like a wrong one, or all of them where none is like it."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"the nearest is {' or '.join(close)}" if close else f"choose one of {', '.join(choices)}"


def explain(error: ValidationError) -> str:
    """What pydantic refused, in one clause: `optimizer/lr: input should be greater than 0`.

    Of several things an unknown field comes first, because a misspelt name also makes the right one seem missing.
    """
    found = error.errors()
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    variants = {variant for group in Recipe.model_fields for variant in _variants(group)}
    place = "/".join(str(part) for part in first["loc"] if part not in variants)
    if first["type"] == "extra_forbidden":
        return f"{place} is no field; {nearest(place, _field_names())}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message[0].lower()}{message[1:]}" if place else message


def _field_names() -> list[str]:
    """Of all variants together."""
    names: list[str] = []
    for group, field in Recipe.model_fields.items():
        classes: list[Any] = list(_variants(group).values()) or [field.annotation]
        options = {option: None for each in classes for option in getattr(each, "model_fields", {})}
        names += [f"{group}/{option}" for option in options] or [group]
    return names


def _flatten(document: Mapping[str, Any]) -> Iterable[tuple[str, Value]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", inner) for name, inner in _flatten(value))
        else:
            yield key, value


def _readings(value: Value) -> list[Value]:
    """What text from the command line may mean, the likeliest first; pydantic reads numbers and booleans itself."""
    return [value, None] if isinstance(value, str) and value.lower() in {"none", "null"} else [value]


def _variants(group: str) -> dict[str, type[Options]]:
    """The classes of a union field by their `name`; none for a plain field."""
    field = Recipe.model_fields[group]
    members = get_args(field.annotation) if field.discriminator else ()
    return {member.model_fields["name"].default: member for member in members}


def _switch_variant(group: str, options: Mapping[str, Any], name: Value) -> dict[str, Any]:
    variants = _variants(group)
    if name not in variants:
        raise UserError(f"{group}/name={name} is not valid; {nearest(str(name), variants)}.")
    return {key: value for key, value in options.items() if key in variants[str(name)].model_fields}
