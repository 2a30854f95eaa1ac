"""A Recipe: everything that decides the result of a training run, and nothing else. Importing this loads no torch.

A field's full name is the same in Optuna, MLflow, the report and `--set`: `optimizer/lr`. Where a space samples a range
that depends on the variant, the sampled name contains the variant: `optimizer/sgd/lr`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from cifar_tune.data.images import IMAGE_SIZE, NUM_CLASSES, DatasetName
from cifar_tune.data.split import num_training_images, num_val_images, split_of
from cifar_tune.errors import InvalidRecipeError, UserError
from cifar_tune.recipe.augment import Augment, Scaling
from cifar_tune.recipe.averaging import Averaging, NoAveraging
from cifar_tune.recipe.early_stopping import EarlyStopping, NoEarlyStopping
from cifar_tune.recipe.finetune import Finetune, Phase, Scratch
from cifar_tune.recipe.mixing import Mixing, NoMixing
from cifar_tune.recipe.models import Model
from cifar_tune.recipe.optimizers import GradClip, NoClipping, Optimizer
from cifar_tune.recipe.options import UNFINISHED, Count, Options, Share, part_of
from cifar_tune.recipe.schedules import Schedule

Value = str | int | float | bool | None

NUM_UNJUDGED_EPOCHS = 2  # after the head's phase, because the whole network's first epochs say little about its last


class Recipe(Options):
    """One training run. The same Recipe with the same number of threads on the same CPU gives the same metrics.

    `dataset` is a published one, a built-in one, or the user's own images: a `folder`, `parquet` or `npz` under
    --data-dir, of which `num_classes` has to be said. Images of another size are resized to `image_size` pixels.

    `epochs` are those of all phases together. `train_images` takes a stratified part of the training split; None takes
    all of it. `precision` "mixed" is bfloat16 autocast on a GPU and float32 on a CPU. Options that make no sense
    together are refused with the reason.
    """

    dataset: DatasetName
    num_classes: int | None = Field(None, ge=2)
    image_size: int = Field(IMAGE_SIZE, ge=28, le=224)
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    finetune: Finetune = Scratch()
    epochs: Count
    batch_size: int = Field(ge=2)
    augment: Augment = Augment()
    scaling: Scaling = "dataset"
    label_smoothing: Share = 0.0
    mixing: Mixing = NoMixing()
    averaging: Averaging = NoAveraging()
    grad_clip: GradClip = NoClipping()
    early_stopping: EarlyStopping = NoEarlyStopping()
    train_images: Count | None = None
    precision: Literal["mixed", "float32"] = "mixed"
    seed: int = Field(0, ge=0, lt=2**64)  # torch takes no larger ones

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        if info.context != UNFINISHED:
            for makes_no_sense, reason in self._conflicts():
                if makes_no_sense:
                    raise ValueError(reason)
        return self

    def _conflicts(self) -> Iterable[tuple[bool, str]]:
        finetune = self.finetune
        known = NUM_CLASSES.get(self.dataset)
        reason = f"dataset={self.dataset} is your own images; say with num_classes how many classes they have"
        yield known is None and self.num_classes is None, reason
        instead = f"leave num_classes out, or beside --set dataset={self.dataset} add --set num_classes=none"
        reason = f"{self.dataset} has {known} classes; {instead}"
        yield known is not None and self.num_classes not in (None, known), reason
        if finetune.name == "scratch":
            reason = "finetune=scratch starts from random weights; choose full to train all of them"
            yield self.model.weights != "none", f"model/weights={self.model.weights} has no use: {reason}"
        if finetune.name == "two-phase":
            reason = "finetune/head_epochs has to leave at least one of the epochs to the second phase"
            yield finetune.head_epochs >= self.epochs, f"{reason}, but is {finetune.head_epochs} of {self.epochs}"
        reason = "a frozen network's features are not mixed; choose none, or another finetune"
        yield self.mixing.name != "none" and finetune.name == "frozen", f"mixing={self.mixing.name}: {reason}"
        reason = "augment changes nothing, so all views of an image would be the same; leave them out"
        yield self.num_views is not None and self.augment.changes_nothing, f"finetune/views: {reason}"

    def phases(self) -> tuple[Phase, ...]:
        """The phases of the run: what is trained when, and with which highest learning rate."""
        return self.finetune.phases(self.epochs, self.optimizer.lr)

    def steps_per_epoch(self, num_images: int) -> int:
        """The number of optimizer steps in an epoch of `num_images`.

        One image that is left over joins the last batch, because a batch norm has no statistics of a single image.
        """
        full, rest = divmod(num_images, self.batch_size)
        return full + (rest > 1 or full == 0)

    @property
    def num_outputs(self) -> int:
        """How many classes its network tells apart."""
        return self.num_classes or NUM_CLASSES[self.dataset]

    @property
    def num_train_images(self) -> int | None:
        """How many images of the whole data set it trains on; None where only the user's own files know."""
        return self.train_images or num_training_images(self.dataset)

    @property
    def num_val_images(self) -> int | None:
        """How many images of the whole data set it is validated on; None as above."""
        num_train = num_training_images(self.dataset) and self.num_train_images
        return num_train and num_val_images(num_train, split_of(self.dataset))

    @property
    def evaluation_batch(self) -> int:
        """The size of a batch where no gradient is needed; a larger one would fill a small machine's memory."""
        return max(1, self.model.evaluation_batch * IMAGE_SIZE**2 // self.image_size**2)

    @property
    def num_views(self) -> int | None:
        """The number of fixed views of each training image in the frozen epochs; None where views are not fixed."""
        return self.finetune.num_views(self.epochs)

    @property
    def has_fixed_features(self) -> bool:
        """Whether a frozen backbone sees the same training images in every epoch, so that its features can be kept."""
        is_frozen = any(phase.frozen for phase in self.phases())
        return is_frozen and (self.num_views is not None or self.augment.changes_nothing)

    @property
    def first_rung(self) -> int:
        """The earliest epoch after which a trial can be compared with others and stopped."""
        last = self.phases()[-1]
        return last.first_epoch + NUM_UNJUDGED_EPOCHS if last.first_epoch else 1

    def epoch_at(self, fraction: float) -> int:
        """The first epoch after which this fraction of the last phase is over; each phase has a schedule of its own."""
        last = self.phases()[-1]
        return last.first_epoch + max(1, part_of(fraction, last.epochs))

    def stops(self, scores: Sequence[float]) -> bool:
        """Whether early stopping ends the run after the epochs with these validation scores.

        It counts the last phase only, so that no run ends before the whole network was trained.
        """
        in_last_phase = scores[self.phases()[-1].first_epoch :]
        return bool(in_last_phase) and self.early_stopping.stops(in_last_phase)

    def flatten(self) -> dict[str, Value]:
        """Every field by its full name, in the order of the class: `{"dataset": …, "model/name": …}`."""
        return dict(_flatten(self.model_dump()))

    def sampled_names(self) -> dict[str, Value]:
        """Every field's value by all names that a space can sample it under: `optimizer/lr` and `optimizer/adam/lr`."""
        flat = self.flatten()
        carried = {
            f"{group}/{flat[f'{group}/name']}/{option}": value
            for (group, _, option), value in ((name.partition("/"), value) for name, value in flat.items())
            if f"{group}/name" in flat and option != "name"
        }
        return flat | carried

    def replace(self, settings: Mapping[str, Value], *, skip_unknown: bool = False) -> Self:
        """A copy with fields set by their full names; text is read as the field's type.

        A changed variant (`optimizer/name`) keeps the options that the new variant also has. Changed `epochs` keep the
        head's share of them. An unknown name or value raises a UserError with the nearest valid ones; `skip_unknown`
        ignores names that this recipe does not have, because they belong to other variants.
        """
        recipe = self
        for name, value in sorted(settings.items(), key=_place_in_order):
            if not skip_unknown or name in recipe.flatten():
                recipe = recipe._replace_field(name, value)
        try:
            return self.model_validate(recipe.model_dump())
        except ValidationError as error:
            raise InvalidRecipeError(f"The recipe makes no sense with this: {explain(error)}.") from None

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
                recipe = self.model_validate(document | changed, context=UNFINISHED)
            except ValidationError as error:
                errors.append(error)
            else:
                return recipe._rescaled(self.epochs)
        raise UserError(f"{name}={value} is not valid: {explain(errors[0])}.") from None

    def _rescaled(self, epochs_before: int) -> Self:
        """A copy in which the phases have the same shares of the epochs as before these changed."""
        if self.epochs == epochs_before:
            return self
        finetune = self.finetune.rescaled(self.epochs / epochs_before, self.epochs)
        return self.model_copy(update={"finetune": finetune})


def _place_in_order(setting: tuple[str, Value]) -> tuple[bool, bool]:
    """A key to sort by: variants first, because they decide which fields there are, then `epochs`, then the rest."""
    name, _ = setting
    return not name.endswith("/name"), name != "epochs"


def field_of(sampled_name: str) -> str:
    """The full name of the field that a sampled name sets: `optimizer/lr` for `optimizer/sgd/lr`."""
    parts = sampled_name.split("/")
    return f"{parts[0]}/{parts[-1]}" if len(parts) == 3 else sampled_name


def nearest(name: str, choices: Iterable[str]) -> str:
    """Half a sentence: the valid names that are most similar to a wrong one, or all of them where none is similar."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"the nearest is {' or '.join(close)}" if close else f"choose one of {', '.join(choices)}"


def explain(error: ValidationError, model: type[Options] = Recipe) -> str:
    """Half a sentence on what pydantic refused in a `model`: `optimizer/lr: input should be greater than 0`.

    An unknown field comes before other errors, because a misspelt name also makes the right one seem missing.
    """
    errors = error.errors()
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    parts = [str(part) for part in first["loc"]]
    place = "/".join(_without_variant(parts, model))
    if first["type"] == "extra_forbidden":
        return _explain_unknown(place, parts, model)
    if first["type"] == "union_tag_not_found":
        return f"{place} has no name; choose one of {', '.join(_variants(place, model))}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message[0].lower()}{message[1:]}" if place else message


def _explain_unknown(place: str, parts: Sequence[str], model: type[Options]) -> str:
    """Half a sentence on a field that does not exist, or that another variant of its group has."""
    names = _field_names(model)
    if place not in names:
        return f"{place} is no field; {nearest(place, names)}"
    group, variant = parts[:2]
    own = [f"{group}/{option}" for option in _variants(group, model)[variant].model_fields if option != "name"]
    return f"{place} is no field of {variant}; {nearest(place, own)}"


def _without_variant(place: list[str], model: type[Options]) -> list[str]:
    """A field's place without the variant, which pydantic names: `optimizer/lr` for `optimizer/adam/lr`."""
    has_variant = len(place) > 1 and place[0] in model.model_fields and place[1] in _variants(place[0], model)
    return [place[0], *place[2:]] if has_variant else place


def _field_names(model: type[Options]) -> list[str]:
    """The full names of all fields of all variants."""
    names: list[str] = []
    for group, field in model.model_fields.items():
        classes: list[Any] = list(_variants(group, model).values()) or [field.annotation]
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
    """What a value from the command line can mean, the likeliest first; pydantic reads numbers and booleans itself."""
    return [value, None] if isinstance(value, str) and value.lower() in {"none", "null"} else [value]


def _variants(group: str, model: type[Options] = Recipe) -> dict[str, type[Options]]:
    """The classes of a union field by their `name`; empty for a plain field."""
    field = model.model_fields[group]
    members = get_args(field.annotation) if field.discriminator else ()
    return {member.model_fields["name"].default: member for member in members}


def _switch_variant(group: str, options: Mapping[str, Any], name: Value) -> dict[str, Any]:
    variants = _variants(group)
    if name not in variants:
        raise UserError(f"{group}/name={name} is not valid; {nearest(str(name), variants)}.")
    return {key: value for key, value in options.items() if key in variants[str(name)].model_fields}
