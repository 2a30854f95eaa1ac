"""An ImageNet ResNet-50 fine-tuned as a whole at 224 px on CIFAR-100.

Source: the CIFAR-100 repository, "ResNet50 CIFAR-100 Classification": a head of 512 with dropout 0.5; flip, padded
crop, colour jitter, rotation and grayscale; SGD with momentum and weight decay; a learning rate that falls when the
validation loss stops falling; early stopping with a patience of 7 epochs. It leaves open, and we chose: a learning rate
of 0.01, momentum 0.9, weight decay 5e-4, batches of 128, at most 50 epochs, a tenth of the learning rate after 3 epochs
without improvement, jitter 0.2/0.2/0.2/0.1, rotation by 15 degrees, grayscale 0.1, padding 4.

    cifar-tune run search_spaces/resnet50_cifar100.py

Cost: 28 trials of at most 50 epochs of about 1.2 PFLOP; half an hour to an hour a trial on a large GPU, and too much
for a CPU.
Expected: 82 to 86 % is published for full fine-tuning at 224 px.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar100",
    model={"name": "resnet50", "weights": "imagenet", "head": "512", "dropout": 0.5, "image_size": 224},
    optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
    schedule={"name": "plateau", "reduction": 0.1, "patience": 3},
    finetune={"name": "full"},
    early_stopping={"name": "patience", "patience": 7},
    augment={
        "flip": True,
        "crop_padding": 4,
        "padding_mode": "zero",
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
        "hue": 0.1,
        "rotation": 15.0,
        "grayscale": 0.1,
    },
    scaling="imagenet",
    epochs=50,
    batch_size=128,
)


def space(trial: Trial) -> Recipe:
    """Learning rate, schedule, regularisation and strengths of the augmentation around the repository's values."""
    return BASELINE.replace(
        {
            "model/dropout": trial.suggest_float("model/dropout", 0.0, 0.7),
            "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-3, 1e-1, log=True),
            "optimizer/weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-5, 1e-2, log=True),
            "schedule/name": trial.suggest_categorical("schedule/name", ["plateau", "cosine", "one-cycle"]),
            "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
            "augment/rotation": trial.suggest_float("augment/rotation", 0.0, 30.0),
            "augment/hue": trial.suggest_float("augment/hue", 0.0, 0.2),
            "augment/grayscale": trial.suggest_float("augment/grayscale", 0.0, 0.3),
        }
    )


SEARCH = Search(num_trials=28)
