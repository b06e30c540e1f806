"""Checkpoints of a training state, by Orbax."""

from pathlib import Path

import orbax.checkpoint as ocp

from videomae_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run: the last two, written in the background, each complete or absent."""

    def __init__(self, directory: Path):
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True),
            item_names=("state",),
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint; None when there is none."""
        return self._manager.latest_step()

    def restore(self, abstract_state: TrainState) -> TrainState:
        """The newest state, laid out as `abstract_state` says, whatever the devices it was written on."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
        return self._manager.restore(self.latest_step, args=args)["state"]

    def save(self, step: int, state: TrainState) -> None:
        """Copies the state and writes it in the background."""
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))

    def close(self) -> None:
        """Waits until all is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
