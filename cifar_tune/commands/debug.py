"""`cifar-tune run --debug`: train the baseline in this process, without Ray and without a record.

cifar-tune run search_spaces/resnet9.py --debug
"""

import torch

from cifar_tune.commands.display import progress_console
from cifar_tune.commands.run import RunOptions
from cifar_tune.commands.session import load_data
from cifar_tune.search.space import Space
from cifar_tune.store import open_store
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import EpochMetrics, Training
from cifar_tune.training.scores import ScoreName, metric_name
from cifar_tune.training.weights import open_weights
from cifar_tune.wording import format_percent, format_score, format_seconds


def debug_baseline(space: Space, options: RunOptions) -> None:
    """Train the first baseline where a debugger can stop it, and print every epoch on stderr."""
    options.refuse_all_but("--debug trains the baseline in this process")
    store, console = open_store(options.training.store), progress_console()
    recipe = space.baselines[0]
    weights = open_weights(recipe.model.weights)
    data = load_data(recipe, store, options.training)
    use_gpu = torch.cuda.is_available() and options.training.gpus_per_trial != 0
    device = torch.device("cuda" if use_gpu else "cpu")
    score = space.search.score
    training = Training(recipe, DeviceData.place(data, device), weights, FeatureCache(store.features), score=score)
    console.print(f"{recipe.model.name}, {training.num_parameters:,} parameters, on {device}", highlight=False)
    for name, fact in training.facts.items():
        console.print(f"{name}: {fact}", highlight=False, markup=False)
    for m in training.fit():
        console.print(
            f"epoch {m.epoch}/{recipe.epochs}  train {m.train_loss:.4f} {format_percent(m.train_accuracy)}  "
            f"validation {m.val_loss:.4f} {format_percent(m.val_accuracy)}{_other_score(m, score)}  lr {m.lr:.3g}  "
            f"{format_seconds(m.seconds)}  {m.images_per_second:,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )


def _other_score(metrics: EpochMetrics, score: ScoreName) -> str:
    """The score beside the accuracy; nothing where it is the accuracy."""
    return "" if score == "accuracy" else f" {format_score(score, getattr(metrics, metric_name(score)))}"
