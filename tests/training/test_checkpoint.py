import os
import resource
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from videomae_jax.training.checkpoint import Checkpoints
from videomae_jax.training.mesh import batch_sharding


def trained(trainer, batch):
    state, _ = trainer.compile_step(16, views=1)(
        trainer.init_state(), jax.device_put(batch, batch_sharding(trainer.mesh))
    )
    return state


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_state_comes_back_bit_for_bit_on_any_mesh(make_trainer, batch, tmp_path):
    trainer, other = make_trainer(data=8), make_trainer(fsdp=4, tensor=2)
    state = trained(trainer, batch)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state)
    checkpoints.close()
    for reader in (trainer, other):
        step, restored = Checkpoints(tmp_path, keep=2).restore(reader.abstract_state)
        assert step == 1
        assert_same(restored, state)
        placed = jax.tree.map(lambda x: x.sharding, restored), jax.tree.map(lambda x: x.sharding, reader.abstract_state)
        assert jax.tree.all(jax.tree.map(lambda a, b: a == b, *placed))


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param(dict(devices=4), marks=pytest.mark.full),
        pytest.param(dict(devices=4, fsdp=2), marks=pytest.mark.full),
        pytest.param(dict(devices=2, tensor=2), marks=pytest.mark.full),
        dict(devices=1),
    ],
)
def test_fewer_devices_go_on_with_the_same_losses(make_trainer, batch, tmp_path, axes):
    def five_more(trainer, state):
        step = trainer.compile_step(16, views=1)
        clips = jax.device_put(batch, batch_sharding(trainer.mesh))
        losses = []
        for _ in range(5):
            state, loss = step(state, clips)
            losses.append(float(loss))
        return losses

    trainer = make_trainer(data=4, fsdp=2)
    checkpoints = Checkpoints(tmp_path, keep=2)
    state = trained(trainer, batch)
    checkpoints.save(1, state)
    checkpoints.close()
    fewer = make_trainer(**axes)
    _, restored = Checkpoints(tmp_path, keep=2).restore(fewer.abstract_state)
    np.testing.assert_allclose(five_more(fewer, restored), five_more(trainer, state), rtol=1e-6)


def test_a_state_saved_in_the_background_is_not_touched_by_the_steps_after_it(make_trainer, batch, tmp_path):
    trainer = make_trainer(data=8)
    step, clips = trainer.compile_step(16, views=1), jax.device_put(batch, batch_sharding(trainer.mesh))
    state = trained(trainer, batch)
    kept = jax.tree.map(lambda x: np.array(x), state)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state)
    for _ in range(5):
        state, _ = step(state, clips)  # reuses the saved state's memory
    checkpoints.close()
    assert_same(Checkpoints(tmp_path, keep=2).restore(trainer.abstract_state)[1], kept)


def test_the_last_two_are_kept(make_trainer, tmp_path):
    state = make_trainer().init_state()
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest_step is None
    assert checkpoints.restore(make_trainer().abstract_state) is None
    for step in (1, 2, 3):
        checkpoints.save(step, state)
    checkpoints.close()
    assert Checkpoints(tmp_path, keep=2).latest_step == 3
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["2", "3"]


def test_what_a_kill_left_half_written_is_neither_read_nor_in_the_way(make_trainer, tmp_path):
    state = make_trainer().init_state()
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state)
    checkpoints.close()
    half = tmp_path / "2.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    half.mkdir(parents=True)
    (half / "manifest.ocdbt").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest_step == 1
    checkpoints.save(2, state)
    checkpoints.close()
    assert_same(Checkpoints(tmp_path, keep=2).restore(make_trainer().abstract_state)[1], state)


@pytest.fixture
def three_steps(make_trainer, tmp_path):
    """A trainer and its states 1, 2 and 3, each of other numbers and all on disk."""
    trainer = make_trainer()
    state = trainer.init_state()
    states = {step: jax.tree.map(lambda x, step=step: x + step, state) for step in (1, 2, 3)}
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step, state in states.items():
        checkpoints.save(step, state)
    checkpoints.close()
    return trainer, states


def files_of(folder):
    """Those with numbers in them; some hold the same ones, and only one is read."""
    return [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size > 200]


def damage_files(folder):
    """Other bytes in the middle."""
    for file in files_of(folder):
        content = bytearray(file.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(64)
        file.write_bytes(content)


def cut_off_files(folder):
    for file in files_of(folder):
        os.truncate(file, file.stat().st_size // 2)


def remove_files(folder):
    for file in files_of(folder):
        file.unlink()


def remove_the_state(folder):
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize("damage", [damage_files, cut_off_files, remove_files, remove_the_state])
def test_the_newest_intact_one_takes_the_place_of_damaged_ones(three_steps, tmp_path, damage, capsys):
    trainer, states = three_steps
    for step in (2, 3):
        damage(tmp_path / str(step))
    checkpoints = Checkpoints(tmp_path, keep=3)
    step, restored = checkpoints.restore(trainer.abstract_state)
    assert step == 1
    assert_same(restored, states[1])
    assert f"the checkpoint of step 3 is damaged and now {tmp_path}/damaged-3: " in capsys.readouterr().out
    # The run comes to the same steps again.
    checkpoints.save(2, states[2])
    checkpoints.close()
    step, restored = Checkpoints(tmp_path, keep=3).restore(trainer.abstract_state)
    assert step == 2
    assert_same(restored, states[2])
    # And may be damaged again.
    damage(tmp_path / "2")
    step, restored = Checkpoints(tmp_path, keep=3).restore(trainer.abstract_state)
    assert step == 1
    assert {path.name for path in tmp_path.glob("damaged-*")} == {"damaged-2", "damaged-2-2", "damaged-3"}


def test_other_numbers_than_were_written_are_seen(three_steps, tmp_path, monkeypatch, capsys):
    trainer, states = three_steps
    really = ocp.CheckpointManager.restore

    def restore(self, step, args):
        restored = really(self, step, args=args)
        if step == 3:
            one = restored["state"].params["encoder_to_decoder"]
            one["kernel"] = one["kernel"].at[0, 0].add(1e-6)
        return restored

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    step, restored = Checkpoints(tmp_path, keep=3).restore(trainer.abstract_state)
    assert step == 2
    assert_same(restored, states[2])
    assert "what was written of params/encoder_to_decoder/kernel is not what is read" in capsys.readouterr().out


def test_nothing_intact_is_an_error_that_says_what_is_wrong_with_each(three_steps, tmp_path):
    trainer, _ = three_steps
    for step in (1, 2, 3):
        remove_the_state(tmp_path / str(step))
    with pytest.raises(ValueError, match=f"No checkpoint in {tmp_path} can be read: step 3: .*; step 2: .*; step 1: "):
        Checkpoints(tmp_path, keep=3).restore(trainer.abstract_state)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["1", "2", "3"]


def test_a_checkpoint_that_cannot_be_written_names_its_place(make_trainer, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, make_trainer().init_state())
    checkpoints._manager.wait_until_finished()
    _, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit))  # as if the disk were full
    try:
        with pytest.raises(ValueError, match=f"cannot be written to {tmp_path}: .* complete one is of step 1"):
            checkpoints.save(2, make_trainer().init_state())
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    assert Checkpoints(tmp_path, keep=2).latest_step == 1
