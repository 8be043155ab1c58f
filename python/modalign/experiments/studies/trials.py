"""Search of learning rate and weight decay for many encoders at once, by Optuna's TPE, one Optuna study an encoder."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from modalign.experiments.studies.unimodal import Fit, Trained, UnimodalTrainer

__all__ = ["Search", "Tuned", "Tuner"]


@dataclasses.dataclass(frozen=True)
class Search:
    """The search space, and the number of pairs of learning rate and weight decay tried in all and at once."""

    trials: int
    at_once: int
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]


class Tuned(NamedTuple):
    """An encoder to tune: the name of its Optuna study, its data set and its seed."""

    title: str
    data: int
    seed: int


class Tuner:
    """Optuna studies in ``storage``, a URL.

    ``whose`` separates this tuner's studies from others in the same storage, as ``Study.key`` does: two studies of one
    name would delete each other's trials.
    """

    def __init__(self, search: Search, storage: str, whose: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.lock = search, threading.Lock()  # SQLite has one writer
        self.storage, self.whose = optuna.storages.RDBStorage(storage), whose

    def study(self, title: str, seed: int) -> Any:
        """Return a new Optuna study: the trials of an unfinished part have lost their encoders."""
        import optuna

        name = f"{self.whose}-{title}"
        with contextlib.suppress(KeyError):
            optuna.delete_study(study_name=name, storage=self.storage)
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return optuna.create_study(study_name=name, storage=self.storage, direction="maximize", sampler=sampler)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self.lock:
            try:
                yield
            except KeyError:
                raise ValueError(
                    "the trials of this study have vanished from Optuna's storage: something else deleted them; what "
                    "is finished stays, run again to continue"
                ) from None

    def tuned(
        self,
        trainer: UnimodalTrainer,
        encoders: Sequence[Tuned],
        epochs: int,
        on_epoch: Callable[[], object] = lambda: None,
        on_step: Callable[[], object] = lambda: None,
    ) -> tuple[Trained, list[Fit]]:
        """Return the best trial of each encoder by validation score, with its learning rate and weight decay."""
        search = self.search
        with self._writing():
            studies = [self.study(encoder.title, encoder.seed) for encoder in encoders]
        best: Trained | None = None
        whose: list[int] = []
        chosen: list[Fit] = []
        for start in range(0, search.trials, search.at_once):
            at_once = min(search.at_once, search.trials - start)
            with self._writing():
                asked = [(i, study.ask()) for _ in range(at_once) for i, study in enumerate(studies)]
                fits = [
                    Fit(
                        encoders[i].data,
                        encoders[i].seed,
                        trial.suggest_categorical("learning_rate", search.learning_rates),
                        trial.suggest_categorical("weight_decay", search.weight_decays),
                    )
                    for i, trial in asked
                ]
            trained = trainer.train(fits, epochs, on_epoch, on_step)
            with self._writing():
                for (i, trial), score in zip(asked, trained.validation.tolist(), strict=True):
                    studies[i].tell(trial, score)
            pool = trained if best is None else _joined(best, trained)
            whose, chosen = [*whose, *(i for i, _ in asked)], [*chosen, *fits]
            rows = _best(pool.validation.tolist(), whose, len(encoders))
            best, chosen, whose = _rows(pool, rows), [chosen[j] for j in rows], [whose[j] for j in rows]
        assert best is not None
        return best, chosen

    def together(
        self, titles: Sequence[str], scores: Callable[[list[tuple[float, float]]], list[float]], *, seed: int = 42
    ) -> list[tuple[float, float]]:
        """Return the best learning rate and weight decay for each title, one trial after another.

        scores: returns a score for each title, given its learning rate and weight decay.
        """
        search = self.search
        with self._writing():
            studies = [self.study(title, seed) for title in titles]
        for _ in range(search.trials):
            with self._writing():
                trials = [study.ask() for study in studies]
                rates = [
                    (
                        trial.suggest_categorical("learning_rate", search.learning_rates),
                        trial.suggest_categorical("weight_decay", search.weight_decays),
                    )
                    for trial in trials
                ]
            found = scores(rates)
            with self._writing():
                for study, trial, score in zip(studies, trials, found, strict=True):
                    study.tell(trial, score)
        with self._writing():
            return [(study.best_params["learning_rate"], study.best_params["weight_decay"]) for study in studies]


def _best(scores: list[float], whose: list[int], count: int) -> list[int]:
    """Return the best trial of each encoder, the first of equals."""
    return [
        max((j for j, owner in enumerate(whose) if owner == i), key=lambda j: (scores[j], -j)) for i in range(count)
    ]


def _joined(one: Trained, two: Trained) -> Trained:
    parameters = {name: torch.cat([one.parameters[name], value]) for name, value in two.parameters.items()}
    return Trained(parameters, *[torch.cat([a, b]) for a, b in zip(one[1:], two[1:], strict=True)])


def _rows(trained: Trained, rows: list[int]) -> Trained:
    kept = torch.tensor(rows)
    return Trained({name: value[kept] for name, value in trained.parameters.items()}, *[v[kept] for v in trained[1:]])
