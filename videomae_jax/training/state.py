"""The training state, and one step of it. Here a model becomes (graphdef, nested dict of arrays)."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from videomae_jax.training.adapters import add_adapters, merge_adapters
from videomae_jax.training.devices import peak_flops
from videomae_jax.training.finetuning import Finetuning
from videomae_jax.training.host_memory import free_compilers_memory
from videomae_jax.training.mesh import batch_sharding, path_name, shardings
from videomae_jax.training.tasks import Batch, Pretraining

# TPUs' compiler would make rings of permutes of the gathers of large weights, which move twice as much.
WHOLE_GATHERS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
SKIPPED = "skipped_steps"  # in the window: those whose loss or gradient was not finite; the others are "steps"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a run needs to go on; what is random or read from data is a function of `step`."""

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree  # running average of the trained parameters; None for no average
    window: dict[str, Array]  # sums of what is logged since the last line, with their number of steps

    def with_empty_window(self) -> "TrainState":
        """The state at the beginning of a new line of the log."""
        zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), self.window)
        return dataclasses.replace(self, window=zeros)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """One task on one mesh: its initial state and its step, compiled and sharded.

    Attributes:
      task: the model and its loss.
      optimizer: of the parameters that the task trains; where its `update` is given `finite=False`, it leaves its state
        as it is.
      mesh: the devices.
      accumulation: parts of a batch that go through the devices one after the other.
      ema_decay: of the average of the trained parameters; None for no average.
    """

    task: Pretraining | Finetuning
    optimizer: optax.GradientTransformationExtraArgs
    mesh: Mesh
    accumulation: int
    ema_decay: float | None = None

    @functools.cached_property
    def graphdef(self) -> nnx.GraphDef:
        """The model without its parameters."""
        return nnx.split(nnx.eval_shape(lambda: self.task.create(jax.random.key(0))))[0]

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state; nothing is allocated."""
        state = jax.eval_shape(lambda: self._init(jax.random.key(0)))
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            shardings(state, self.mesh),
        )

    @property
    def peak_clips(self) -> float | None:
        """Clips a second at the devices' peak rate, for MFU; None where that or the work of a clip is not known."""
        peak, work = peak_flops(self.mesh, self.task.dtype), self.task.clip_flops
        return None if peak is None or work is None else peak / work

    def init_state(self) -> TrainState:
        """A fresh state, every array made where it stays."""
        init = jax.jit(self._init, out_shardings=self._state_shardings)
        return init(jax.random.key(self.task.seed))

    def state_from(self, model: nnx.Module) -> TrainState:
        """A state at step 0 with the parameters of a model."""
        params = nnx.to_pure_dict(nnx.split(model)[1])
        params = jax.device_put(params, shardings(params, self.mesh))
        init = jax.jit(self._with_params, out_shardings=self._state_shardings)
        return init(params, jax.random.key(self.task.seed))

    def model_params(self, state: TrainState) -> PyTree:
        """The parameters of the model that is measured and kept: averaged, adapters merged."""
        return self._model_params(state.params, state.ema)

    @functools.cached_property
    def _model_params(self) -> Callable[[PyTree, PyTree], PyTree]:
        if self.ema_decay is None and self.task.adapter_rank is None:
            return lambda params, ema: params

        def combine(params, ema):
            return merge_adapters(params if ema is None else combined(ema, params))

        return jax.jit(combine)

    @functools.cached_property
    def _state_shardings(self) -> TrainState:
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)

    def _init(self, key) -> TrainState:
        return self._with_params(nnx.to_pure_dict(nnx.split(self.task.create(key))[1]), key)

    def _with_params(self, params: PyTree, key) -> TrainState:
        if self.task.adapter_rank is not None:
            params = add_adapters(params, self.task.adapter_rank, key)
        trained = self.trained(params)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=self.optimizer.init(trained),
            # A copy: both are donated to the first step.
            ema=None if self.ema_decay is None else jax.tree.map(jnp.copy, trained),
            window={name: jnp.zeros(()) for name in (*self.task.logged, "grad_norm", "steps", SKIPPED)},
        )

    def trained(self, params: PyTree) -> PyTree:
        """The parameters that are trained; None in the place of the others, which is nothing to JAX."""

        def only(path, leaf):
            return leaf if self.task.trains(path_name(path), leaf.shape).any() else None

        return jax.tree_util.tree_map_with_path(only, params)

    def _of_trained_layers(self, updates: PyTree) -> PyTree:
        """Gradients or updates without those of blocks that stay as they are."""

        def only(path, update):
            trains = self.task.trains(path_name(path), update.shape)
            return update if trains.all() else update * trains.reshape(-1, *[1] * (update.ndim - 1))

        return jax.tree_util.tree_map_with_path(only, updates)

    def compile_step(self, batch_size: int, views: int, deterministic: bool = False) -> jax.stages.Compiled:
        """`state, loss = step(state, batch)`: one update, compiled. The old state's memory is reused.

        Where the loss or the gradient is not finite, the loss is NaN, and nothing changes but the step's number and the
        learning rate, which follows it.

        Args:
          batch_size, views: of each batch.
          deterministic: on GPUs, take only kernels that come to the same bits every time, and the same ones in every
            run; slower. CPUs do anyway.
        """
        step = jax.jit(
            self._step,
            donate_argnums=0,
            in_shardings=(self._state_shardings, batch_sharding(self.mesh)),
            out_shardings=(self._state_shardings, None),
        )
        lowered = step.lower(self.abstract_state, self.task.batch_shapes(batch_size, views))
        if self.mesh.devices.flat[0].platform == "tpu":
            options = WHOLE_GATHERS
        else:
            options = {"xla_gpu_deterministic_ops": True} if deterministic else None
        compiled = lowered.compile(compiler_options=options)
        free_compilers_memory()
        return compiled

    def loss(self, trained: PyTree, params: PyTree, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The task's loss on a prepared batch, of the trained parameters with all others from `params`."""
        params = merge_adapters(combined(trained, params))
        return self.task.loss(nnx.merge(self.graphdef, params), batch)

    def _step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Float[Array, ""]]:
        def loss(trained, batch):
            return self.loss(trained, state.params, batch)

        with jax.named_scope("prepare"):
            trained, batch = self.trained(state.params), self.task.prepare(batch)
        grads, metrics = accumulate(jax.grad(loss, has_aux=True), trained, batch, self.accumulation)
        with jax.named_scope("optimizer"):
            grads = self._of_trained_layers(grads)
            grad_norm = optax.tree.norm(grads)
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
            updates, opt_state = self.optimizer.update(grads, state.opt_state, trained, finite=finite)
            # Once more: weight decay moves what has no gradient.
            trained = optax.apply_updates(trained, self._of_trained_layers(updates))

        def kept(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)

        ema = state.ema
        if self.ema_decay is not None:
            ema = kept(optax.incremental_update(trained, ema, 1 - self.ema_decay), ema)
        metrics = {**metrics, "grad_norm": grad_norm, "steps": 1.0, SKIPPED: 0.0}
        loss = jnp.where(finite, metrics["loss"], jnp.nan)
        state = TrainState(
            step=state.step + 1,
            params=kept(combined(trained, state.params), state.params),
            opt_state=opt_state,
            ema=ema,
            window={
                name: state.window[name] + jnp.where(finite, value, float(name == SKIPPED))
                for name, value in metrics.items()
            },
        )
        return state, loss

    def diagnose(self, state: TrainState, batch: Batch) -> str:
        """What is not finite where a step was skipped, in words."""

        def loss_and_norms(state, batch):
            batch = self.task.prepare(batch)
            trained, grad = self.trained(state.params), jax.grad(self.loss, has_aux=True)
            grads, metrics = accumulate(
                lambda trained, part: grad(trained, state.params, part), trained, batch, self.accumulation
            )
            return metrics["loss"], jax.tree.map(jnp.linalg.norm, grads)

        loss, norms = jax.device_get(jax.jit(loss_and_norms)(state, batch))
        norms = {path_name(path): norm for path, norm in jax.tree_util.tree_leaves_with_path(norms)}
        finite = {name: norm for name, norm in norms.items() if np.isfinite(norm)}
        said = [f"the loss is {loss}"]
        if bad := sorted(norms.keys() - finite):
            said.append(f"the gradient is not finite in {len(bad)} of {len(norms)} parameters, such as {bad[0]}")
        if finite:
            largest = max(finite, key=finite.get)
            said.append(f"the largest finite norm is {finite[largest]:.3g}, of {largest}")
        return "; ".join(said)


def combined(some: PyTree, all_params: PyTree) -> PyTree:
    """All parameters, with those that are not None in `some` from there."""
    return jax.tree.map(
        lambda own, other: other if own is None else own, some, all_params, is_leaf=lambda leaf: leaf is None
    )


def accumulate(grad: Callable, params: PyTree, batch: Batch, steps: int) -> tuple[PyTree, dict[str, Array]]:
    """The mean of `grad(params, part)` over `steps` parts of the batch, one after the other, in one buffer."""
    if steps == 1:
        return grad(params, batch)
    # Part i takes rows i, i + steps, ...: every device keeps its own rows, none travels.
    parts = jax.tree.map(lambda x: x.reshape(-1, steps, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, grad(params, part)), None

    first = jax.eval_shape(grad, params, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / steps, total)
