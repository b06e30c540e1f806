import jax
import numpy as np

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
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    checkpoints.close()
    for reader in (trainer, other):
        restored = Checkpoints(tmp_path).restore(reader.abstract_state)
        assert_same(restored, state)
        placed = jax.tree.map(lambda x: x.sharding, restored), jax.tree.map(lambda x: x.sharding, reader.abstract_state)
        assert jax.tree.all(jax.tree.map(lambda a, b: a == b, *placed))


def test_a_state_saved_in_the_background_is_not_touched_by_the_steps_after_it(make_trainer, batch, tmp_path):
    trainer = make_trainer(data=8)
    step, clips = trainer.compile_step(16, views=1), jax.device_put(batch, batch_sharding(trainer.mesh))
    state = trained(trainer, batch)
    kept = jax.tree.map(lambda x: np.array(x), state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    for _ in range(5):
        state, _ = step(state, clips)  # reuses the saved state's memory
    checkpoints.close()
    assert_same(Checkpoints(tmp_path).restore(trainer.abstract_state), kept)


def test_the_last_two_are_kept(make_trainer, tmp_path):
    state = make_trainer().init_state()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step is None
    for step in (1, 2, 3):
        checkpoints.save(step, state)
    checkpoints.close()
    assert Checkpoints(tmp_path).latest_step == 3
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["2", "3"]


def test_what_a_kill_left_half_written_is_neither_read_nor_in_the_way(make_trainer, tmp_path):
    state = make_trainer().init_state()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    checkpoints.close()
    half = tmp_path / "2.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    half.mkdir(parents=True)
    (half / "manifest.ocdbt").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step == 1
    checkpoints.save(2, state)
    checkpoints.close()
    assert_same(Checkpoints(tmp_path).restore(make_trainer().abstract_state), state)
