"""Checkpoints of a training state, by Orbax: each complete or absent, and checked when it is read."""

import itertools
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from videomae_jax.training.checksum import checksums
from videomae_jax.training.mesh import path_name
from videomae_jax.training.processes import all_agree, is_first, wait_for_all
from videomae_jax.training.state import TrainState

STATE, CHECKSUMS = "state", "checksums"


class Checkpoints:
    """The checkpoints of one run: the last ones, written in the background.

    Args:
      directory: theirs alone.
      keep: how many.
    """

    def __init__(self, directory: Path, keep: int):
        self._directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_names=(STATE, CHECKSUMS),
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint; None when there is none."""
        return self._manager.latest_step()

    def restore(self, abstract_state: TrainState) -> tuple[int, TrainState] | None:
        """The newest state that is intact, and its step; None where there is no checkpoint.

        One that is damaged is put aside, as `damaged-STEP`, which is said; the one before it takes its place.

        Args:
          abstract_state: says how the state is to lie, whatever the devices it was written on.

        Raises:
          ValueError: there are checkpoints, and none is intact.
        """
        damages = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            state, damage = self._read(step, abstract_state)
            if all_agree(damage is None):
                self._put_aside(damages)
                return step, state
            damages[step] = damage or "another process cannot read it"
        if damages:
            told = "; ".join(f"step {step}: {damage}" for step, damage in damages.items())
            raise ValueError(
                f"No checkpoint in {self._directory} can be read: {told}. Where the storage is not to blame, remove "
                "that folder, and the run begins anew."
            )
        return None

    def _read(self, step: int, abstract_state: TrainState) -> tuple[TrainState | None, str | None]:
        """A state, or what is wrong with it."""
        args = ocp.args.Composite(
            **{STATE: ocp.args.StandardRestore(abstract_state), CHECKSUMS: ocp.args.JsonRestore()}
        )
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # Orbax, TensorStore and file systems have each their own
            return None, " ".join(str(error).split())[:500]
        state = restored[STATE]
        changed = [name for name, sum in named_checksums(state).items() if restored[CHECKSUMS].get(name) != sum]
        return state, f"what was written of {', '.join(changed[:3])} is not what is read" if changed else None

    def _put_aside(self, damages: dict[int, str]) -> None:
        for step, damage in damages.items():
            aside = self._directory / f"damaged-{step}"
            times = itertools.count(2)
            while aside.exists():
                aside = aside.with_name(f"damaged-{step}-{next(times)}")
            print(f"warning: the checkpoint of step {step} is damaged and now {aside}: {damage}", flush=True)
            if is_first():
                (self._directory / str(step)).rename(aside)
        if damages:
            wait_for_all("damaged checkpoints put aside")
            self._manager.reload()

    def save(self, step: int, state: TrainState) -> None:
        """Copies the state and writes it in the background.

        Raises:
          ValueError: the one before could not be written.
        """
        args = ocp.args.Composite(
            **{STATE: ocp.args.StandardSave(state), CHECKSUMS: ocp.args.JsonSave(named_checksums(state))}
        )
        self._write(lambda: self._manager.save(step, args=args))

    def close(self) -> None:
        """Waits until all is on disk; errors as in `save`."""
        self._write(self._manager.wait_until_finished)
        self._manager.close()

    def _write(self, write: Any) -> None:
        try:
            write()
        except Exception as error:  # as above
            raise ValueError(
                f"A checkpoint cannot be written to {self._directory}: {' '.join(str(error).split())[:500]}. The last "
                f"complete one is of step {self.latest_step}; when that is mended, the same command goes on from there."
            ) from error


def named_checksums(state: TrainState) -> dict[str, int]:
    """Checksums of a state's arrays by their paths."""
    sums = jax.device_get(checksums(state))
    return {path_name(path): int(sum) for path, sum in jax.tree_util.tree_leaves_with_path(sums)}
