"""Parts of a data set that are so small that a network trains on them in a moment."""

from dataclasses import replace
from typing import TYPE_CHECKING

from cifar_tune.data.images import Images, TrainingData

if TYPE_CHECKING:
    from cifar_tune.training.inputs import DeviceData


def cut(data: TrainingData, num_train: int, num_val: int) -> TrainingData:
    train = Images(data.train.images[:num_train], data.train.labels[:num_train])
    val = Images(data.val.images[:num_val], data.val.labels[:num_val])
    return replace(data, train=train, val=val)


def placed(data: TrainingData) -> "DeviceData":
    import torch

    from cifar_tune.training.inputs import DeviceData

    return DeviceData.place(data, torch.device("cpu"))
