"""The two sides of `step.py`: one step of a model, as a user of this package or of transformers would run it.

A side is made in a process of its own. It gives steps (`step(kind, size, batch)`), the rate of large matrix products
(`matmul_rate()`), and the most memory that was held (`peak_memory()`). On CPUs ours computes in the thread that asks,
in inference too, as `train.py` and `eval.py` do.
"""

import resource
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
from report import processor_name

from videomae_jax.config import SINGLE_LABEL, VideoMAEConfig
from videomae_jax.model.flops import TRAINING, classification_flops, pretraining_flops
from videomae_jax.model.masking import Masking

Kind = Literal["pretrain", "dual", "finetune", "inference"]
Step = Callable[[], None]  # one step, done when it returns
CLASSES = 400
MASK_RATIO = 0.9
SQUARE = {"cpu": 4096, "gpu": 8192, "tpu": 8192}  # sides of the matrices that rates are measured with


class Ours:
    """This package, on JAX's default device. `program` is the text of what was compiled last."""

    def __init__(self):
        import jax

        from videomae_jax.training.host_memory import compute_in_this_thread

        compute_in_this_thread()
        self.jax = jax
        self.platform = jax.default_backend()
        self.device = processor_name() if self.platform == "cpu" else jax.devices()[0].device_kind
        self.dtype = jax.numpy.dtype("float32" if self.platform == "cpu" else "bfloat16")

    def step(self, kind: Kind, size: str, batch: int) -> tuple[Step, float]:
        """A compiled step, and the seconds that compiling took."""
        return self._inference(size, batch) if kind == "inference" else self._training(kind, size, batch)

    def _inference(self, size: str, batch: int) -> tuple[Step, float]:
        from flax import nnx

        from videomae_jax import VideoMAEForVideoClassification

        config = self._classifier(size)
        graphdef, state = nnx.split(VideoMAEForVideoClassification(config, dtype=self.dtype, rngs=nnx.Rngs(0)))
        params, clips = nnx.to_pure_dict(state), self.jax.device_put(_pixels(batch))
        forward = self.jax.jit(lambda params, clips: nnx.merge(graphdef, params)(clips).logits).lower(params, clips)
        begin = time.perf_counter()
        compiled = forward.compile()
        seconds, self.program = time.perf_counter() - begin, compiled.as_text()
        return lambda: compiled(params, clips).block_until_ready(), seconds

    def _training(self, kind: Kind, size: str, batch: int) -> tuple[Step, float]:
        from videomae_jax.training.finetuning import Finetuning
        from videomae_jax.training.host_memory import keep_steps_memory
        from videomae_jax.training.mesh import make_mesh
        from videomae_jax.training.mixing import Mixing
        from videomae_jax.training.optimizer import adamw
        from videomae_jax.training.recipe import Optim
        from videomae_jax.training.state import Trainer
        from videomae_jax.training.tasks import Pretraining

        every = dict(flip=False, seed=0, dtype=self.dtype)
        if kind in ("pretrain", "dual"):
            config = VideoMAEConfig.from_size(size)
            task = Pretraining(config, _masking(kind, config), **every)
        else:
            mixing = Mixing(mixup=0.0, cutmix=0.0, probability=1.0, switch=0.5)
            plain = dict(erasing=0.0, mixing=mixing, label_smoothing=0.0, frozen=None, adapter_rank=None)
            task = Finetuning(self._classifier(size), **plain, **every)
        optim = Optim(
            base_lr=1e-3,
            min_lr=0.0,
            warmup_epochs=0.0,
            weight_decay=0.05,
            b1=0.9,
            b2=0.95,
            clip_norm=None,
            accumulation=1,
            mu_dtype="float32",
        )
        mesh = make_mesh(data=1, fsdp=1, tensor=1, devices=self.jax.devices()[:1])
        trainer = Trainer(task, adamw(lambda step: 1e-4, optim), mesh, optim.accumulation)
        content = {"video": _pixels(batch)[:, None], "sample": np.arange(batch, dtype=np.uint32)}
        if kind == "finetune":
            content["label"] = np.arange(batch, dtype=np.int32) % CLASSES
        content = self.jax.device_put(content)
        with self.jax.set_mesh(mesh):
            state = trainer.init_state()
            begin = time.perf_counter()
            run = trainer.compile_step(batch, views=1)
            keep_steps_memory(mesh)
        seconds, self.program = time.perf_counter() - begin, run.as_text()

        def step() -> None:
            nonlocal state
            state, loss = run(state, content)
            loss.block_until_ready()

        return step, seconds

    def _classifier(self, size: str) -> VideoMAEConfig:
        names = {number: f"class {number}" for number in range(CLASSES)}
        return VideoMAEConfig.from_size(size, id2label=names, problem_type=SINGLE_LABEL, use_mean_pooling=True)

    def matmul_rate(self) -> float:
        """FLOP/s of a product of large square matrices."""
        x = self.jax.random.normal(self.jax.random.key(0), (SQUARE[self.platform],) * 2, self.dtype)
        product = self.jax.jit(lambda x: x @ x)
        return _rate(lambda: product(x).block_until_ready(), len(x))

    def peak_memory(self) -> int:
        """Bytes."""
        return (
            _peak_of_process() if self.platform == "cpu" else self.jax.devices()[0].memory_stats()["peak_bytes_in_use"]
        )


class SingleMasking(Ours):
    """This package's pre-training where the other side masks for the decoder, too."""

    def step(self, kind: Kind, size: str, batch: int) -> tuple[Step, float]:
        """A compiled step, and the seconds that compiling took."""
        return super().step("pretrain", size, batch)


class Transformers:
    """transformers on PyTorch, with SDPA and fused AdamW, on its GPU if there is one."""

    def __init__(self, compiled: bool):
        import torch

        self.torch = torch
        self.compiled = compiled
        self.platform = "gpu" if torch.cuda.is_available() else "cpu"
        self.device = torch.cuda.get_device_name() if self.platform == "gpu" else processor_name()
        self.place = "cuda" if self.platform == "gpu" else "cpu"
        self.dtype = torch.float32 if self.platform == "cpu" else torch.bfloat16

    def step(self, kind: Kind, size: str, batch: int) -> tuple[Step, float]:
        """A step, and the seconds of the first one more than of the second: what compiling took."""
        import transformers

        torch = self.torch
        torch.manual_seed(0)
        config = transformers.VideoMAEConfig(**_shape(size), num_labels=CLASSES, attn_implementation="sdpa")
        cls = transformers.VideoMAEForPreTraining if kind == "pretrain" else transformers.VideoMAEForVideoClassification
        model = cls(config).to(self.place).train(kind != "inference")
        inputs = {"pixel_values": torch.randn(batch, 16, 3, 224, 224, device=self.place)}
        if kind == "pretrain":
            inputs["bool_masked_pos"] = self._mask(batch, VideoMAEConfig.from_size(size).grid)
        elif kind == "finetune":
            inputs["labels"] = torch.arange(batch, device=self.place) % CLASSES
        forward = torch.compile(model) if self.compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

        def train() -> None:
            with torch.autocast(self.place, self.dtype, enabled=self.platform == "gpu"):
                loss = forward(**inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            self._wait()

        def infer() -> None:
            with torch.inference_mode(), torch.autocast(self.place, self.dtype, enabled=self.platform == "gpu"):
                forward(**inputs)
            self._wait()

        step = infer if kind == "inference" else train
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            step()
            times.append(time.perf_counter() - begin)
        return step, times[0] - times[1]

    def _mask(self, batch: int, grid: tuple[int, int, int]):
        """Tubes: the same places in every frame."""
        t, h, w = grid
        rng, places = np.random.default_rng(0), np.zeros((batch, t, h * w), bool)
        for clip in places:
            clip[:, rng.permutation(h * w)[: int(MASK_RATIO * h * w)]] = True
        return self.torch.from_numpy(places.reshape(batch, -1)).to(self.place)

    def _wait(self) -> None:
        if self.platform == "gpu":
            self.torch.cuda.synchronize()

    def matmul_rate(self) -> float:
        """FLOP/s of a product of large square matrices."""
        x = self.torch.randn(*(SQUARE[self.platform],) * 2, device=self.place, dtype=self.dtype)

        def product() -> None:
            x @ x
            self._wait()

        return _rate(product, len(x))

    def peak_memory(self) -> int:
        """Bytes."""
        return _peak_of_process() if self.platform == "cpu" else self.torch.cuda.max_memory_allocated()


SIDES = {
    "ours": Ours,
    "single_masking": SingleMasking,
    "transformers": lambda: Transformers(compiled=False),
    "transformers_compiled": lambda: Transformers(compiled=True),
}


def _masking(kind: Kind, config: VideoMAEConfig) -> Masking:
    """The paper's, or V2's with half of the tokens left to the decoder."""
    decoder = ("running_cell", 0.5) if kind == "dual" else ("none", 0.0)
    return Masking("tube", MASK_RATIO, *decoder, config.grid)


def model_flops(kind: Kind, size: str) -> int:
    """Of a clip."""
    config = VideoMAEConfig.from_size(size, num_labels=CLASSES)
    if kind in ("pretrain", "dual"):
        masking = _masking(kind, config)
        return TRAINING * pretraining_flops(config, masking.num_visible, masking.num_decoded)
    return classification_flops(config, config.num_patches) * (TRAINING if kind == "finetune" else 1)


def _shape(size: str) -> dict:
    """transformers' fields for a size of ours."""
    config = VideoMAEConfig.from_size(size)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    fields = (*names, *(f"decoder_{name}" for name in names))
    patch = {"patch_size": config.patch[1], "tubelet_size": config.tubelet_size}
    return {field: getattr(config, field) for field in fields} | patch | {"use_mean_pooling": True}


def _pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, 16, 224, 224, 3), np.uint8)


def _rate(product: Step, side: int) -> float:
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        product()
        times.append(time.perf_counter() - begin)
    return 2 * side**3 / sorted(times)[len(times) // 2]


def _peak_of_process() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
