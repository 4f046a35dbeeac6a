"""Data: the order of batches, splits, augmentation, file formats, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import write_vowels
from torch import Tensor

import pnn.tasks
from pnn.errors import UserError
from pnn.tasks import MNIST, Digits, FashionMNIST, Task, Vowels
from pnn.tasks.augment import affine, flip, flip_shift, shift, transform
from pnn.tasks.idx import read_idx, write_idx
from pnn.tasks.loader import BatchLoader, generator
from pnn.tasks.vowels import VOWELS, filled, read_table

HILLENBRAND = Path(__file__).parents[2] / "shared" / "data" / "hillenbrand"
Batches = list[list[int]]


def counting_loader(
    count: int = 10, batch_size: int = 4, shuffle: bool = True, seed: int = 0, **more: Any
) -> BatchLoader:
    """Labels 0, 1, 2, …, so that a batch shows which samples are in it."""
    x = torch.arange(float(count)).unsqueeze(1)
    return BatchLoader(x, torch.arange(count), batch_size=batch_size, shuffle=shuffle, seed=seed, **more)


def epoch(loader: BatchLoader) -> Batches:
    return [y.tolist() for _, y in loader]


# ---- the loader ------------------------------------------------------------------------------------------------------


def test_every_epoch_holds_every_sample_once_in_an_order_of_its_own() -> None:
    loader = counting_loader()
    epochs = [epoch(loader) for _ in range(4)]
    assert len(loader) == 3 and all([len(b) for b in batches] == [4, 4, 2] for batches in epochs)
    assert all(sorted(chain(*batches)) == list(range(10)) for batches in epochs)
    assert len({str(batches) for batches in epochs}) == 4


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, again, other = counting_loader(seed=3), counting_loader(seed=3), counting_loader(seed=4)
    torch.manual_seed(1)
    a = [epoch(first) for _ in range(3)]
    torch.manual_seed(2)  # the global generator has no part in it
    assert a == [epoch(again) for _ in range(3)]
    assert a != [epoch(other) for _ in range(3)]
    again.set_epoch(1)
    assert epoch(again) == a[1]


def test_seed_and_epoch_are_mixed_not_added() -> None:
    drawn = {(s, e): tuple(torch.randperm(20, generator=generator(s, e)).tolist()) for s in range(4) for e in range(4)}
    assert len(set(drawn.values())) == len(drawn)


def test_without_shuffling_the_order_is_the_data_s() -> None:
    loader = counting_loader(shuffle=False)
    assert epoch(loader) == epoch(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("taken", range(10))
def test_state_continues_with_the_very_next_batch(taken: int) -> None:
    whole = list(chain(*(epoch(loader) for loader in [counting_loader()] for _ in range(4))))
    loader, seen = counting_loader(), []
    while len(seen) < taken:
        for _, y in loader:
            seen.append(y.tolist())
            if len(seen) == taken:
                break
    resumed = counting_loader()
    resumed.load_state_dict(loader.state_dict())
    while len(seen) < len(whole):
        seen += epoch(resumed)
    assert seen == whole


def test_an_iteration_broken_off_starts_its_epoch_again() -> None:
    loader = counting_loader()
    epoch(loader)
    second = [next(iter(loader))[1].tolist() for _ in range(2)]
    assert second[0] == second[1] == epoch(loader)[0]


def test_augmentation_is_a_function_of_seed_epoch_and_batch() -> None:
    def noise(x: Tensor, g: torch.Generator) -> Tensor:
        return x + torch.rand(x.shape, generator=g)

    def inputs(loader: BatchLoader) -> list[Tensor]:
        return [x for x, _ in loader]

    one, two = counting_loader(shuffle=False, augment=noise), counting_loader(shuffle=False, augment=noise)
    first, second = inputs(one), inputs(one)
    two.load_state_dict({"epoch": 1, "batch": 1})
    assert all(torch.equal(a, b) for a, b in zip(inputs(two), second[1:], strict=True))
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0] - first[0].floor(), first[1] - first[1].floor())


@pytest.mark.parametrize("state", [{"epoch": 0, "batch": 4}, {"epoch": -1, "batch": 0}, {"epoch": 0, "batch": -1}])
def test_a_state_of_another_loader_is_refused(state: dict[str, int]) -> None:
    with pytest.raises(UserError, match="3 batches an epoch"):
        counting_loader().load_state_dict(state)


def test_loader_refuses_an_impossible_batch_size_and_unequal_lengths() -> None:
    with pytest.raises(UserError, match="batch_size=0 must be >= 1"):
        counting_loader(batch_size=0)
    with pytest.raises(UserError, match="3 inputs and 4 labels"):
        BatchLoader(torch.zeros(3, 1), torch.zeros(4), batch_size=1, shuffle=True, seed=0)


# ---- resuming in a real Trainer --------------------------------------------------------------------------------------


class Witness(pl.LightningModule):
    """Notes (epoch, index, samples) of every training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = torch.nn.Linear(1, 1), []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        self.seen.append((self.current_epoch, index, batch[1].tolist()))
        return self.linear(batch[0]).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


class Broken(Exception):
    """The run ends here."""


class SaveAt(pl.Callback):
    """Write a checkpoint at a step or at the end of its epoch, and end the run there unless max_steps does."""

    def __init__(self, step: int, where: str, path: Path):
        self.step, self.where, self.path = step, where, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and self.where in ("max_steps", "batch"):
            trainer.save_checkpoint(self.path)
            if self.where == "batch":
                raise Broken

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._at_the_end("validation", trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._at_the_end("epoch", trainer)

    def _at_the_end(self, where: str, trainer: pl.Trainer) -> None:
        if self.where == where and trainer.global_step >= self.step:
            trainer.save_checkpoint(self.path)
            raise Broken


def witnessed(saver: SaveAt | None = None, ckpt: Path | None = None, **more: Any) -> list:
    module = Witness()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[saver] if saver else None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    with suppress(Broken):
        trainer.fit(module, counting_loader(), counting_loader(shuffle=False), ckpt_path=ckpt)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [None, 2])
def test_a_resumed_trainer_sees_the_batches_of_the_run_never_stopped(limit: int | None, tmp_path: Path) -> None:
    """Stopped after any step, between an epoch's last batch and its end, with and without limit_train_batches."""
    more = {} if limit is None else {"limit_train_batches": limit}
    whole, path = witnessed(**more), tmp_path / "stopped.ckpt"
    assert len({str(samples) for *_, samples in whole}) == len(whole), "every batch is another one"
    for where in ("max_steps", "batch", "epoch", "validation"):
        for step in range(1, len(whole)):
            stop = {"max_steps": step} if where == "max_steps" else {}
            before = witnessed(SaveAt(step, where, path), **stop, **more)
            assert before + witnessed(ckpt=path, **more) == whole, (where, step)


# ---- splits ----------------------------------------------------------------------------------------------------------


def rows(*parts: tuple[Tensor, Tensor]) -> list[tuple[float, ...]]:
    return [tuple(row) for x, _ in parts for row in x.tolist()]


def ready(task: Task) -> Task:
    task.prepare_data()
    task.setup()
    return task


def test_digits_split_is_disjoint_stratified_and_reproducible() -> None:
    task, again, other = (ready(Digits(split_seed=s)) for s in (1, 1, 2))
    assert [len(part[1]) for part in (task.train, task.val, task.test)] == [1100, 297, 400]
    assert len(set(rows(task.train, task.val, task.test))) == len(set(rows(other.train, other.val, other.test))) == 1797
    assert torch.equal(task.val[0], again.val[0]) and not torch.equal(task.val[0], other.val[0])
    for x, y in (task.train, task.val, task.test):
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.min() == 0 and x.max() == 1 and x.shape[1:] == (task.features,)
        share = torch.bincount(y, minlength=10) / len(y)
        assert (share - 0.1).abs().max() < 0.01


def test_seed_and_validation_never_move_the_test_images() -> None:
    task, other = ready(Digits()), ready(Digits(seed=5, validation=0.5, train_limit=100, batch_size=7, noise=0.1))
    assert torch.equal(task.test[0], other.test[0])
    assert len(other.val[1]) == 698 and len(other.train[1]) == 100
    assert torch.bincount(other.train[1]).min() >= 9
    assert set(rows(other.train)).isdisjoint(rows(other.val, other.test))


def test_digits_noise_reaches_training_batches_only() -> None:
    task = ready(Digits(noise=0.1, batch_size=1100))
    x, y = next(iter(task.train_dataloader()))
    clean = {tuple(row): label for row, label in zip(task.train[0].tolist(), task.train[1].tolist(), strict=True)}
    assert not any(tuple(row) in clean for row in x.tolist())
    order = torch.randperm(1100, generator=generator(0, 0))
    assert abs((x - task.train[0][order]).std().item() - 0.1) < 1e-3 and torch.equal(y, task.train[1][order])
    assert torch.equal(next(iter(task.val_dataloader()))[0], task.val[0])


def test_setup_twice_keeps_the_data() -> None:
    task = ready(Digits())
    before = task.train[0]
    task.setup("fit")
    assert task.train[0] is before


# ---- image sets ------------------------------------------------------------------------------------------------------


def image_task(images: Path, **options: Any) -> FashionMNIST:
    task = FashionMNIST(path=str(images), **{"validation": 50, **options})
    ready(task)
    return task


@pytest.mark.parametrize(("stride", "side"), [(1, 28), (2, 14), (3, 10)])
def test_stride_takes_every_nth_pixel(images: Path, stride: int, side: int) -> None:
    task = image_task(images, stride=stride)
    assert task.image_shape == (side, side) and task.features == side * side
    full = read_idx(images / "t10k-images-idx3-ubyte")
    expected = torch.tensor(full[:, ::stride, ::stride].reshape(40, -1) / 255, dtype=torch.float32)
    torch.testing.assert_close(task.test[0], expected, rtol=0, atol=1e-7)
    assert [len(part[1]) for part in (task.train, task.val, task.test)] == [150, 50, 40]
    assert torch.bincount(task.val[1]).tolist() == [5] * 10
    assert set(rows(task.train)).isdisjoint(rows(task.val))


def test_shapes_are_known_without_any_data(tmp_path: Path) -> None:
    task = MNIST(stride=2, path=str(tmp_path / "nowhere"))
    assert (task.features, task.classes, task.image_shape, len(task.class_names)) == (196, 10, (14, 14), 10)
    vowels = Vowels()
    assert (vowels.features, vowels.classes, vowels.image_shape, len(vowels.class_names)) == (12, 7, None, 7)


@pytest.mark.parametrize(("stride", "side"), [(2, 14), (3, 10)])
def test_pooling_takes_the_mean_of_each_square(images: Path, stride: int, side: int) -> None:
    task = image_task(images, stride=stride, pool=True)
    assert task.features == side * side
    full = read_idx(images / "t10k-images-idx3-ubyte").astype(float) / 255
    squares = [
        [full[:, r : r + stride, c : c + stride].mean((1, 2)) for c in range(0, 28, stride)]
        for r in range(0, 28, stride)
    ]
    expected = torch.tensor(np.array(squares), dtype=torch.float32).movedim(-1, 0).flatten(1)
    torch.testing.assert_close(task.test[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="task.pool=yes must be true or false"):
        image_task(images, pool="yes")


def test_shifts_are_whole_pixels_and_equally_likely() -> None:
    x = torch.zeros(9000, 7, 5)
    x[:, 3, 2] = 1.0
    moved = shift(x, torch.Generator().manual_seed(0))
    assert torch.equal(moved.sum((1, 2)), torch.ones(9000))
    counts = moved.sum(0)[2:5, 1:4]
    assert counts.sum() == 9000
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    corner = torch.ones(50, 7, 5)
    assert set(shift(corner, torch.Generator().manual_seed(0)).sum((1, 2)).tolist()) == {35.0, 30.0, 28.0, 24.0}


@pytest.mark.parametrize(("augment", "stride"), [("flip", 1), ("flip", 2), ("flip_shift", 1), ("affine", 2)])
def test_augmentation_changes_training_batches_only(images: Path, augment: str, stride: int) -> None:
    task = image_task(images, augment=augment, stride=stride, batch_size=150)
    x, y = next(iter(task.train_dataloader()))
    order = torch.randperm(150, generator=generator(0, 0))
    assert x.shape == task.train[0].shape and torch.equal(y, task.train[1][order])
    assert not torch.equal(x, task.train[0][order])
    assert torch.equal(next(iter(task.val_dataloader()))[0], task.val[0])
    if augment == "flip" and stride == 1:  # only the order within a row changes
        rows_of = (x.view(150, 28, 28), task.train[0][order].view(150, 28, 28))
        torch.testing.assert_close(*(r.sort(-1).values for r in rows_of))


def test_affine_acts_on_the_full_image_before_the_stride(images: Path) -> None:
    task = image_task(images, augment="affine", stride=2, batch_size=150)
    strided = image_task(images, stride=2)
    full = torch.tensor(read_idx(images / "train-images-idx3-ubyte") / 255, dtype=torch.float32)
    kept = {tuple(image[::2, ::2].flatten().tolist()): image for image in full}
    order = torch.randperm(150, generator=generator(0, 0))
    picked = torch.stack([kept[tuple(row)] for row in strided.train[0][order].tolist()])  # (150, 28, 28)
    x, _ = next(iter(task.train_dataloader()))
    torch.testing.assert_close(x, affine(picked, generator(0, 0, 0))[:, ::2, ::2].flatten(1))


def test_flip_is_left_right_with_probability_one_half() -> None:
    x = torch.rand(2000, 3, 5)
    y = flip(x, generator(0))
    mirrored = (y == x.flip(-1)).flatten(1).all(1)
    kept = (y == x).flatten(1).all(1)
    assert torch.all(mirrored ^ kept) and abs(mirrored.float().mean() - 0.5) < 0.05
    assert torch.equal(flip(y, generator(0)), x)  # the same draw once more undoes it


def test_affine_of_no_size_changes_nothing() -> None:
    x = torch.rand(7, 28, 28)
    torch.testing.assert_close(affine(x, generator(0), 0.0, (0.0, 0.0), (1.0, 1.0)), x, rtol=0, atol=1e-5)


def test_affine_is_the_same_one_by_one() -> None:
    x, g = torch.rand(5, 28, 28), generator(1)
    angle, scale, t = torch.rand(5, generator=g), torch.rand(5, generator=g) + 0.5, torch.rand(5, 2, generator=g) * 0.2
    single = torch.cat([transform(x[i : i + 1], angle[i : i + 1], scale[i : i + 1], t[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(transform(x, angle, scale, t), single)


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (x, y) and covariance of the brightness, in units of half the width."""
    at = (2 * torch.arange(28) + 1) / 28 - 1
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)
    weight = (image / image.sum()).unsqueeze(-1)
    centre = (weight * grid).sum((0, 1))
    offset = grid - centre
    return centre, torch.einsum("ij,ija,ijb->ab", weight.squeeze(-1), offset, offset)


def test_affine_turns_scales_and_moves_as_it_says() -> None:
    x = torch.zeros(1, 28, 28)
    x[0, 13:15, 8:20] = 1.0  # a bar along x in the middle
    angle, scale, t = torch.tensor([0.3]), torch.tensor([1.2]), torch.tensor([[0.1, -0.2]])
    _, before = moments(x[0])
    centre, after = moments(transform(x, angle, scale, t)[0])
    torch.testing.assert_close(centre, t[0], atol=2e-3, rtol=0)
    assert abs((after[0, 0] + after[1, 1]) / (before[0, 0] + before[1, 1]) - 1.2**2) < 0.05
    direction = 0.5 * torch.atan2(2 * after[0, 1], after[0, 0] - after[1, 1])
    assert abs(direction - 0.3) < 0.01


def test_affine_stays_in_its_limits() -> None:
    x = torch.zeros(500, 28, 28)
    x[:, 13:15, 13:15] = 1.0
    centres = torch.stack([moments(image)[0] for image in affine(x, generator(0))])
    assert centres[:, 0].abs().max() < 5e-3  # no shift across
    assert 0.09 < centres[:, 1].abs().max() < 0.105  # ±0.05 of the height, which is 2 in these units


def test_class_names_and_unknown_names() -> None:
    assert len(FashionMNIST.class_names) == 10 and MNIST.class_names[3] == "3"
    with pytest.raises(AttributeError, match="no attribute 'CIFAR'"):
        pnn.tasks.CIFAR  # noqa: B018


# ---- files -----------------------------------------------------------------------------------------------------------


def test_idx_round_trip(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    write_idx(tmp_path / "a", array)
    assert (tmp_path / "a").read_bytes()[:8] == bytes([0, 0, 8, 3, 0, 0, 0, 3])
    assert np.array_equal(read_idx(tmp_path / "a"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "nothing"),
        (b"\x1f\x8b\x08\x00zipped", "starts with 1f8b0800.*unpack"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "starts with 00000d01"),
        (b"\0\0\x08\x02\0\0\0\x02", "not an IDX file"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"holds 3 bytes.*says 5 \(5\)"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "holds 3 bytes.*says 2"),
    ],
)
def test_a_damaged_idx_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_idx(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone cannot be read.*pnn-data"):
        read_idx(tmp_path / "gone")


def test_images_and_labels_that_do_not_fit_are_refused(images: Path, tmp_path: Path) -> None:
    for file in images.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(199, np.uint8))
    with pytest.raises(UserError, match=r"images \(200, 28, 28\) and labels \(199,\)"):
        image_task(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "task.batch_size=0 must be >= 1; use 32"),
        ({"batch_size": 2.5}, "task.batch_size=2.5 must be a whole number >= 1"),
        ({"eval_batch_size": -1}, "task.eval_batch_size=-1 must be >= 1"),
        ({"seed": -1}, "task.seed=-1 must be >= 0"),
        ({"split_seed": -1}, "task.split_seed=-1 must be >= 0"),
        ({"stride": 0}, "task.stride=0 must be >= 1 and <= 28; use 1"),
        ({"stride": 29}, "task.stride=29 must be"),
        ({"augment": "mirror"}, "task.augment=mirror must be one of none, flip, flip_shift, affine"),
        ({"train_limit": 0}, "task.train_limit=0 must be >= 1; use null"),
        ({"validation": 0}, "task.validation=0 must be > 0"),
        ({"validation": float("nan")}, "task.validation=nan must be > 0"),
        ({"validation": True}, "task.validation=True must be > 0"),
    ],
)
def test_a_wrong_option_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MNIST(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 200}, "task.validation=200 must be .*< 200"),
        ({"validation": 50.5}, "task.validation=50.5 must be a number of samples"),
        ({"validation": 0.001}, "task.validation=0.001"),
        ({"validation": 5}, "task.validation=5 must leave at least one .* 10 classes"),
        ({"train_limit": 3}, "task.train_limit=3 must leave at least one"),
    ],
)
def test_a_split_that_cannot_be_is_refused(options: dict[str, Any], message: str, images: Path) -> None:
    with pytest.raises(UserError, match=message):
        image_task(images, **options)


def test_noise_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match=r"task.noise=-0.1 must be finite and >= 0"):
        Digits(noise=-0.1)


# ---- vowels ----------------------------------------------------------------------------------------------------------


def test_vowels_are_split_by_speaker_and_scaled_by_the_training_tokens(tmp_path: Path) -> None:
    write_vowels(tmp_path / "vowdata.dat", 12)
    task = ready(Vowels(path=str(tmp_path), validation=2, test=3))
    assert isinstance(task, Vowels)
    assert [len(s) for s in task.speakers.values()] == [7, 2, 3]
    assert len(set(chain(*task.speakers.values()))) == 12
    assert [tuple(part[0].shape) for part in (task.train, task.val, task.test)] == [(49, 12), (14, 12), (21, 12)]
    assert torch.equal(task.train[0].amin(0), torch.zeros(12)) and torch.equal(task.train[0].amax(0), torch.ones(12))
    assert task.test[0].min() < 0 or task.test[0].max() > 1  # scaled with the training tokens, not clipped
    assert all(torch.bincount(y).tolist() == [len(y) // 7] * 7 for _, y in (task.train, task.val, task.test))
    table = read_table(tmp_path / "vowdata.dat")
    train = np.stack([table[s + v] for s in task.speakers["train"] for v in VOWELS])
    expected = (table[task.speakers["test"][1] + "uw"] - train.min(0)) / np.ptp(train, 0)
    np.testing.assert_allclose(task.test[0][7 + VOWELS.index("uw")].numpy(), expected, rtol=1e-5)


def test_vowels_drop_speakers_without_steady_states_and_fill_later_gaps(tmp_path: Path) -> None:
    write_vowels(tmp_path / "vowdata.dat", 12, {"w03iy": {6: 0}, "w05uw": {9: 0}, "w07eh": {4: 0}})
    task = ready(Vowels(path=str(tmp_path), validation=2, test=2))
    assert isinstance(task, Vowels)
    speakers = list(chain(*task.speakers.values()))
    assert sorted(speakers) == [f"w{n:02d}" for n in range(1, 13) if n != 3]
    token = read_table(tmp_path / "vowdata.dat")["w05uw"]
    assert token[4] == 0 and filled(token[None])[0, 4] == token[1]  # F2 at 20 % ← F2 at steady state
    assert np.array_equal(np.delete(filled(token[None])[0], 4), np.delete(token, 4))


def test_vowels_split_depends_on_its_seed_only(tmp_path: Path) -> None:
    write_vowels(tmp_path / "vowdata.dat", 12)
    task, same, other = (
        ready(Vowels(path=str(tmp_path), validation=2, test=2, seed=s, split_seed=p))
        for s, p in ((0, 0), (9, 0), (0, 1))
    )
    assert task.speakers == same.speakers != other.speakers  # type: ignore[attr-defined]


def test_vowels_refuse_too_few_speakers_and_damaged_tables(tmp_path: Path) -> None:
    table = tmp_path / "vowdata.dat"
    write_vowels(table, 12)
    with pytest.raises(UserError, match=r"task.validation=6 and task.test=6 must leave speakers.*< 12"):
        ready(Vowels(path=str(tmp_path)))
    with pytest.raises(UserError, match=r"task.test=0 must be >= 1"):
        Vowels(test=0)
    with pytest.raises(UserError, match=r"task.validation=0.5 must be a whole number"):
        Vowels(validation=0.5)  # type: ignore[arg-type]
    whole = table.read_text()
    for damage, message in ((whole[:-30], "16 columns"), ("hello\n", "no token"), (whole + "w99ae x\n", "damaged")):
        table.write_text(damage)
        with pytest.raises(UserError, match=message):
            read_table(table)


@pytest.mark.skipif(not HILLENBRAND.is_dir(), reason="the table of Hillenbrand et al. is not on this machine")
def test_hillenbrand_gives_259_tokens_of_37_women() -> None:
    task = ready(Vowels(path=str(HILLENBRAND)))
    assert isinstance(task, Vowels)
    assert [len(part[1]) for part in (task.train, task.val, task.test)] == [175, 42, 42]
    assert [len(s) for s in task.speakers.values()] == [25, 6, 6]
    assert all(torch.isfinite(x).all() for x, _ in (task.train, task.val, task.test))
    assert read_table(HILLENBRAND / "vowdata.dat")["w01ae"].shape == (12,)


def test_noise_on_the_inputs_is_reproducible() -> None:
    def first() -> Tensor:
        task = Digits(noise=0.1, batch_size=8, seed=3)
        task.setup()
        return next(iter(task.train_dataloader()))[0]

    assert torch.equal(first(), first())


def test_shifts_come_from_the_generator() -> None:
    x = torch.rand(50, 8, 8)
    assert torch.equal(shift(x, generator(1)), shift(x, generator(1)))


def test_flip_shift_flips() -> None:
    x = torch.zeros(100, 9, 9)
    x[:, 4, 1] = 1.0
    columns = flip_shift(x, generator(0)).sum(1).argmax(1)
    assert (columns < 3).any() and (columns > 5).any()


def test_validation_data_are_encoded_as_training_data() -> None:
    x = torch.rand(6, 3)
    ((batch, _),) = BatchLoader(x, torch.zeros(6), batch_size=6, shuffle=False, seed=0, symmetric=True)
    assert torch.equal(batch, 2 * x - 1)


def test_the_seed_of_the_task_orders_its_batches() -> None:
    def first(seed: int) -> Tensor:
        task = Digits(seed=seed)
        task.setup()
        return next(iter(task.train_dataloader()))[1]

    assert not torch.equal(first(0), first(1))
