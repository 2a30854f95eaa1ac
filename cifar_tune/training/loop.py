"""The training loop: it takes a Recipe and its data, and yields one EpochMetrics for each epoch.

Everything stays on the training device: uint8 images, the order of an epoch, augmentation. Nothing is read back within
an epoch, so a GPU never waits for Python. The loop knows neither Ray nor MLflow.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_tune.recipe.finetune import Phase
from cifar_tune.recipe.layers import PatchWhitening
from cifar_tune.recipe.mixing import Mix
from cifar_tune.recipe.optimizers import set_rate
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.recipe.schedules import Position
from cifar_tune.training.features import FeatureCache, describe_structure
from cifar_tune.training.inputs import DeviceData, DeviceImages, Features, Inputs, Pixels, autocast
from cifar_tune.training.network_size import count_parameters
from cifar_tune.training.scores import ScoreName, metric_name, score_with_error, validation_names
from cifar_tune.training.weights import Weights, for_network, load_weights

NUM_FITTED_ON = 5_000  # training images, as airbench
FITTED_TOGETHER = 50  # images: their patches take 0.3 GB at 224 px


@dataclass(frozen=True)
class EpochMetrics:
    """The results of one epoch.

    `epoch` counts from 1, and `progress` is the share of the planned epochs that are done. Losses are mean
    cross-entropies in nats, the training loss with the recipe's label smoothing and mixed labels. Accuracies are
    fractions; of a mixed training image its own label counts, not its partner's. `lr` is the learning rate of the last
    step, without the scale of any parameter group. `seconds` is the wall-clock time of the epoch and its validation;
    `images_per_second` counts training images, over the time without the validation.

    Where the score is no accuracy, the field of its name has it, and `val_score_error` its standard error from the
    sampling of images; without a value they are no part of `as_row()`.
    """

    epoch: int
    progress: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    val_score_error: float | None = None

    def as_row(self) -> dict[str, float]:
        """The metrics by name, as a record holds them."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class DivergenceError(ArithmeticError):
    """The training or the validation loss was no finite number at optimizer step `step` (from 0)."""

    def __init__(self, step: int) -> None:
        super().__init__(f"The loss is not finite at step {step}.")
        self.step = step


class Training:
    """One run of a Recipe: its network, optimizer and random state, which can be saved between epochs and resumed.

    `weights` are those that `recipe.model.weights` names, None where it is `none`. With a `cache`, a frozen backbone's
    features of images that stay the same are computed once. `facts` says how both were used.

    The `score` on the validation images decides when to stop early and which epoch's network counts.

    A run that also trains on the validation images cannot validate itself. `watched` then holds what `evaluate` gave
    after each epoch of another run of the recipe, and decides when a plateau ends, when to stop, and which epoch's
    network counts.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DeviceData,
        weights: Weights | None = None,
        cache: FeatureCache | None = None,
        watched: Sequence[Sequence[float]] | None = None,
        score: ScoreName = "accuracy",
    ) -> None:
        self.recipe = recipe
        self.data = data
        self.score = score
        self._watched = watched
        self.history: list[EpochMetrics] = []  # of the epochs that are done
        self.facts: dict[str, str] = {}
        self.steps_per_epoch = recipe.steps_per_epoch(len(data.train))
        torch.manual_seed(recipe.seed)  # the network's first weights, and dropout
        self.generator = torch.Generator(data.device).manual_seed(recipe.seed)  # order and augmentation
        model = recipe.model.build(data.num_classes)
        self._load(model, weights)
        # Channels last is faster: 1.2 to 1.4 times on a CPU, and on a GPU it is the layout of the tensor cores.
        self.model = model.to(data.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.backbone, self.head = self.model[:-1], self.model[-1]
        is_frozen = all(phase.frozen for phase in recipe.phases())
        self._changing: torch.nn.Module = self.head if is_frozen else self.model  # what has to be saved
        self.pixels = Pixels(recipe, data, self.generator)
        if weights is None:
            self._fit_layers()
        self.features = Features(recipe, data, self.pixels, self.backbone, self._backbone_key(weights), cache)
        if recipe.has_fixed_features and cache:
            self.facts["features"] = "of the frozen backbone, computed once and cached"
        self._best: dict[str, Tensor] | None = None  # of the epoch that counts, under early stopping
        is_averaged = recipe.averaging.name != "none"
        self._average = _copies(self._changing) if is_averaged else None  # evaluated in place of the last weights
        self._enter(recipe.phases()[0])

    def _load(self, model: torch.nn.Sequential, weights: Weights | None) -> None:
        if (weights is None) != (self.recipe.model.weights == "none"):
            raise ValueError(f"The recipe asks for the weights {self.recipe.model.weights!r}; give those.")
        if weights is not None:
            weights, stripped = for_network(weights, model)
            note = load_weights(model, weights, self.data.dataset)
            self.facts["weights"] = f"{weights.source}, sha256 {weights.file_digest[:16]}"
            if stripped:
                self.facts["weights"] += f"; {stripped}"
            if note:
                self.facts["head"] = note

    def _fit_layers(self) -> None:
        """Fit the layers that are not trained on some training images, without augmentation."""
        indices = torch.arange(min(NUM_FITTED_ON, len(self.data.train)), device=self.data.device)
        for module in self.model.modules():
            if isinstance(module, PatchWhitening):
                module.fit(self.pixels.plain(self.data.train, each) for each in torch.split(indices, FITTED_TOGETHER))

    def _backbone_key(self, weights: Weights | None) -> dict[str, Any]:
        """Everything that decides the backbone's layers and their values."""
        return {
            "structure": describe_structure(self.backbone),
            "torch": torch.__version__,
            "weights": weights.digest if weights else f"seed {self.recipe.seed}",
            **({} if weights else self._fitted()),
        }

    def _fitted(self) -> dict[str, Any]:
        """The values of the layers that were fitted, by their names."""
        modules = self.model.named_modules()
        return {name: each.weight.tolist() for name, each in modules if isinstance(each, PatchWhitening)}

    def _enter(self, phase: Phase) -> None:
        """Begin a phase: set what is trained and on which inputs, and build a new optimizer."""
        self.phase = phase
        self.backbone.requires_grad_(not phase.frozen)
        self._trained: torch.nn.Module = self.head if phase.frozen else self.model
        self._inputs: Inputs = self.features if phase.frozen else self.pixels
        self.optimizer = self.recipe.optimizer.build(self.model)

    def _phase_of(self, epoch: int) -> Phase:
        return next(phase for phase in reversed(self.recipe.phases()) if phase.first_epoch <= epoch)

    @property
    def epoch(self) -> int:
        """The number of epochs that are done."""
        return len(self.history)

    @property
    def num_parameters(self) -> int:
        """The number of the whole network's parameters."""
        return count_parameters(self.model)

    @property
    def is_over(self) -> bool:
        """Whether the last planned epoch is done, or early stopping has ended the run."""
        return self.epoch == self.recipe.epochs or self.recipe.stops(self._scores())

    @property
    def counted(self) -> EpochMetrics:
        """The epoch whose network and score count so far."""
        return self.history[self.recipe.early_stopping.counted(self._scores())]

    def _scores(self) -> list[float]:
        name = metric_name(self.score)
        return [getattr(metrics, name) for metrics in self.history]

    def fit(self) -> Iterator[EpochMetrics]:
        """Train the epochs that are left; raises DivergenceError in the epoch whose loss is no finite number.

        When the last epoch's metrics are yielded, the network is that of the epoch that counts.
        """
        while not self.is_over:
            phase = self._phase_of(self.epoch)
            if phase != self.phase:
                self._enter(phase)
            self.history.append(self._run_epoch())
            self._keep_best()
            yield self.history[-1]

    def _keep_best(self) -> None:
        """With early stopping, remember the network of the best epoch; at the end, take that or the average."""
        if self.recipe.early_stopping.name != "none" and self.counted is self.history[-1]:
            with self._evaluated():
                self._best = _copies(self._changing)
        if self.is_over:
            if (counted := self._best or self._average) is not None:
                self._changing.load_state_dict(counted)
            self._average = None

    @contextmanager
    def _evaluated(self) -> Iterator[None]:
        """Within the block the network has its averaged weights, where the recipe averages."""
        if self._average is None:
            yield
            return
        own = _copies(self._changing)
        self._changing.load_state_dict(self._average)
        try:
            yield
        finally:
            self._changing.load_state_dict(own)

    def _run_epoch(self) -> EpochMetrics:
        start = time.perf_counter()
        train_loss, train_accuracy = self._train_epoch()
        train_seconds = time.perf_counter() - start
        results = self._watched[self.epoch] if self._watched else self.evaluate(self.data.val)
        validation = dict(zip(validation_names(self.score), results, strict=True))
        epoch = self.epoch + 1
        if not np.isfinite(validation["val_loss"]):
            raise DivergenceError(epoch * self.steps_per_epoch - 1)
        return EpochMetrics(
            epoch=epoch,
            progress=epoch / self.recipe.epochs,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            **validation,
            lr=self._rate(self._position(epoch * self.steps_per_epoch - 1)),
            seconds=time.perf_counter() - start,
            images_per_second=len(self.data.train) / train_seconds,
        )

    def _train_epoch(self) -> tuple[float, float]:
        """Train one epoch; its mean loss and accuracy on the augmented training images."""
        self._set_modes()
        train = self.data.train
        order = torch.randperm(len(train), generator=self.generator, device=self.data.device)
        first = self.epoch * self.steps_per_epoch
        results = [self._step(first + i, batch) for i, batch in enumerate(self._batches(order))]
        losses, hits = torch.stack([torch.stack(column) for column in zip(*results, strict=True)]).tolist()
        for step, loss in enumerate(losses, start=first):
            if not np.isfinite(loss):
                raise DivergenceError(step)
        return sum(losses) / len(train), sum(hits) / len(train)

    def rehearse(self, phase: Phase, num_images: int, num_steps: int) -> list[float]:
        """Try the first steps of a phase, each on the first `num_images` training images; their mean losses.

        It shows whether and how fast a recipe trains. Afterwards the run is spoilt for `fit`.
        """
        if phase != self.phase:
            self._enter(phase)
        self._set_modes()
        indices = torch.arange(num_images, device=self.data.device)
        first = phase.first_epoch * self.steps_per_epoch
        losses = [self._step(first + i, indices)[0] for i in range(num_steps)]
        return [loss / num_images for loss in torch.stack(losses).tolist()]

    def _batches(self, order: Tensor) -> list[Tensor]:
        """The indices of each batch: full ones and the rest, or a larger last batch where the rest is one image."""
        batches = list(torch.split(order, self.recipe.batch_size))
        if len(batches) > self.steps_per_epoch:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _set_modes(self) -> None:
        """Switch to training mode: dropout is on, and batch norms collect statistics where the phase allows it."""
        self.model.train()
        self.backbone.train(not self.phase.frozen)
        if self.phase.frozen_norms:
            for module in self.backbone.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _step(self, step: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Take one optimizer step; the batch's summed loss and its number of hits, both on the device."""
        recipe = self.recipe
        inputs = self._inputs.train(indices, self.epoch)
        labels = self.data.train.labels[indices]
        at = self._position(step)
        set_rate(self.optimizer, self._rate(at), recipe.schedule.momentum(at))
        mix = None if self.phase.frozen else recipe.mixing.draw(recipe.seed, step, recipe.image_size)
        logits = self._logits(inputs if mix is None else mix.inputs(inputs))
        loss = self._loss(logits, labels, mix)
        loss.backward()  # type: ignore[no-untyped-call]
        recipe.grad_clip.clip(self._trained.parameters())
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self._average is not None:
            recipe.averaging.update(self._average, self._changing.state_dict(), step)
        return loss.detach() * len(indices), (logits.detach().argmax(dim=1) == labels).sum()

    def _loss(self, logits: Tensor, labels: Tensor, mix: Mix | None) -> Tensor:
        """The batch's mean cross-entropy; of mixed images, with the labels in the images' shares."""

        def loss(labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

        return loss(labels) if mix is None else mix.share * loss(labels) + (1 - mix.share) * loss(mix.partners(labels))

    def _position(self, step: int) -> Position:
        """The position in the phase of step `step` of the run."""
        phase = self.phase
        return Position(
            step=step - phase.first_epoch * self.steps_per_epoch,
            num_steps=phase.epochs * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            first_epoch=phase.first_epoch,
            val_losses=[metrics.val_loss for metrics in self.history[phase.first_epoch :]],
        )

    def _rate(self, at: Position) -> float:
        """The learning rate at a position, without the scale of any parameter group."""
        return self.phase.lr * self.recipe.schedule.factor(at)

    def _logits(self, inputs: Tensor) -> Tensor:
        """The logits of the trained part of the network for its inputs: float32 (n, num_classes)."""
        with autocast(self.recipe, self.data.device):
            logits: Tensor = self._trained(inputs)
        return logits.float()

    @torch.inference_mode()
    def evaluate(self, images: DeviceImages) -> tuple[float, ...]:
        """Mean cross-entropy (nats, without label smoothing) and accuracy over all the images.

        Where the score is another one, it follows with its standard error.
        """
        logits = self.predict(images)
        loss = F.cross_entropy(logits, images.labels)
        hits = (logits.argmax(dim=1) == images.labels).sum()
        loss, hits = torch.stack([loss, hits]).tolist()
        if self.score == "accuracy":
            return loss, hits / len(images)
        predictions, labels = logits.argmax(dim=1).cpu().numpy(), images.labels.cpu().numpy()
        return loss, hits / len(images), *score_with_error(self.score, predictions, labels)

    @torch.inference_mode()
    def predict(self, images: DeviceImages) -> Tensor:
        """The network's logits for images without augmentation: float32 (n, num_classes), on the device."""
        self.model.eval()
        indices = torch.arange(len(images), device=self.data.device)
        batches = torch.split(indices, self.recipe.evaluation_batch)
        with self._evaluated():
            return torch.cat([self._logits(self._inputs.plain(images, batch)) for batch in batches])

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to give the same epochs as an uninterrupted one, bit for bit on a CPU."""
        state = {
            "recipe": self.recipe.model_dump(mode="json"),
            "history": [metrics.as_row() for metrics in self.history],
            "model": self._changing.state_dict(),
            "best": self._best,
            "average": self._average,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "cpu_rng": torch.get_rng_state(),
        }
        if self.data.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.data.device)
        return state

    def can_resume(self, state: Mapping[str, Any]) -> bool:
        """Whether the state is of this run's recipe; fields that an older version did not have count as defaults."""
        return Recipe.model_validate(state["recipe"]) == self.recipe

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of the same Recipe; its tensors can come from another device."""
        self.history = [EpochMetrics(**metrics) for metrics in state["history"]]
        self._changing.load_state_dict(state["model"])
        self._best = state["best"]
        self._average = state.get("average")  # which 0.1.0 did not have
        if self.history:
            self._enter(self._phase_of(self.epoch - 1))
        self.optimizer.load_state_dict(state["optimizer"])
        self._restore_random_state(state)

    def _restore_random_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the state's random numbers; on another kind of device, with those of a seed for the epoch.

        The random state of a GPU means nothing to a CPU, nor the other way round.
        """
        device, was_on_gpu = self.data.device, "cuda_rng" in state
        torch.set_rng_state(state["cpu_rng"].cpu())
        if was_on_gpu == (device.type == "cuda"):
            self.generator.set_state(state["generator"].cpu())
            if was_on_gpu:
                torch.cuda.set_rng_state(state["cuda_rng"].cpu(), device)
            return
        seed = (1_000_003 * (self.recipe.seed + 1) + self.epoch) % 2**63
        self.generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        kinds = "a GPU, and it goes on on a CPU" if was_on_gpu else "a CPU, and it goes on on a GPU"
        self.facts["random_numbers"] = f"differ from epoch {self.epoch + 1} on: its checkpoint is of {kinds}"


def _copies(module: torch.nn.Module) -> dict[str, Tensor]:
    """The module's tensors by name, copied."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
