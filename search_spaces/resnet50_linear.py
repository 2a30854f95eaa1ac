"""A linear classifier on the frozen features of an ImageNet ResNet-50, on CIFAR-10.

Source: the linear-head project, an untitled description of a ResNet-50 with a custom linear layer for CIFAR-10: images
stay at 32 px, Adam trains only the last layer, and a separate validation set judges. It leaves open, and we chose: a
learning rate of 0.001, 10 epochs, batches of 128, ImageNet's scaling.

    cifar-tune run search_spaces/resnet50_linear.py

Cost: one pass of 50,000 images through the backbone for each scaling, whose features are cached; then seconds a trial.
Expected: about 66 % is published for frozen features at 32 px (89 to 90 % at 224 px: --set model/image_size=224).
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "resnet50", "weights": "imagenet", "head": "linear", "image_size": 32},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"},
    finetune={"name": "frozen"},
    augment={"flip": False, "crop_padding": 0},
    scaling="imagenet",
    epochs=10,
    batch_size=128,
)


def space(trial: Trial) -> Recipe:
    """How the last layer is trained; nothing that would change the features from one epoch to the next."""
    return BASELINE.replace(
        {
            "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-1, log=True),
            "optimizer/weight_decay": trial.suggest_float("optimizer/weight_decay", 0.0, 1e-3),
            "schedule/name": trial.suggest_categorical("schedule/name", ["constant", "cosine", "one-cycle"]),
            "scaling": trial.suggest_categorical("scaling", ["imagenet", "dataset", "symmetric"]),
            "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
            "batch_size": trial.suggest_categorical("batch_size", [64, 128, 256, 512]),
        }
    )


SEARCH = Search(num_trials=60)
