"""A model as one file that runs without this package: StableHLO, by `jax.export`, or ONNX, by jax2onnx.

    python -m videomae_jax.inference.export CHECKPOINT model.stablehlo
    python -m videomae_jax.inference.export CHECKPOINT model.onnx

To run the first, JAX is enough, or anything else that reads StableHLO; the second runs without JAX:

    program = jax.export.deserialize(pathlib.Path("model.stablehlo").read_bytes())
    scores = program.call(frames)  # uint8 [B T H W 3], any B, H and W

    (scores,) = onnxruntime.InferenceSession("model.onnx").run(None, {"frames": frames})

`model.stablehlo.json` beside it says T, how far apart the frames are, and what the numbers mean.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export as jax_export
from jaxtyping import Array, Float32, UInt8

from videomae_jax.commands import faults_as_lines
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.inference.opened import opened
from videomae_jax.model.readout import Model, class_scores, pooled_features
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

SUFFIXES = (".stablehlo", ".onnx")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
OPSET = 23  # jax2onnx's own; ONNX Runtime reads it from 1.24 on
LARGEST = 2**31  # bytes, of what StableHLO and ONNX are stored in


def export(
    model: Model | str | Path,
    file: str | Path,
    *,
    processor: VideoMAEImageProcessor | None = None,
    platforms: Sequence[str] | None = None,
) -> None:
    """Writes a program from frames to what a classifier says of them, or to an encoder's vector for each clip.

    It resizes, crops, rescales and normalises as the processor does with its Pillow backend, but for rounding: resized
    pixels are not made bytes again. Its weights are in it.

    Args:
      model: any of the three, or where to load it from.
      file: what to write, `.stablehlo` or `.onnx`; with `.json` at its end the description beside it.
      processor: None for the one beside the checkpoint, or else one for the model's clips.
      platforms: where StableHLO is to run; None for CPUs, NVIDIA GPUs and TPUs.

    Raises:
      ValueError: another ending, an unknown platform, a processor that does more than this, a model of 2 GiB and more,
        or one that ONNX cannot express.
      ImportError: ONNX without jax2onnx, StableHLO without flatbuffers.
    """
    file = Path(file)
    if file.suffix not in SUFFIXES:
        raise ValueError(f"a program's file ends in {' or '.join(SUFFIXES)}, not as {file}.")
    if as_onnx := file.suffix == ".onnx":
        if platforms is not None:
            raise ValueError(f"platforms are of StableHLO; {file} is ONNX, which is the same for all.")
        _import_jax2onnx()
    else:
        _import_flatbuffers()
    platforms = ("cpu", "cuda", "tpu") if platforms is None else platforms
    unknown = set(platforms) - set(PLATFORMS)
    if unknown or not platforms:
        raise ValueError(f"platforms are some of {', '.join(PLATFORMS)}, got {', '.join(sorted(unknown)) or 'none'}.")
    model, processor = opened(model, processor, VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification)
    config = model.config
    if as_onnx and model.dtype != jnp.float32:
        raise ValueError(f"ONNX is written of models that compute in float32; this one does in {model.dtype}.")
    shortest = processor.size.get("shortest_edge") if len(processor.size) == 1 else None
    if not (processor.do_resize and processor.do_center_crop and processor.do_rescale and processor.do_normalize):
        raise ValueError("only processors that resize, crop, rescale and normalise can be exported.")
    if shortest is None:
        raise ValueError(f"only processors that resize the shortest edge can be exported, got size={processor.size}.")
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(nnx.state(model)))
    if parameters >= LARGEST:
        raise ValueError(f"its {parameters / 2**30:.1f} GiB of weights are more than the 2 GiB that a file can have.")
    size = processor.crop_size["height"], processor.crop_size["width"]
    classifies = isinstance(model, VideoMAEForVideoClassification)
    read = class_scores if classifies else pooled_features

    def program(frames):
        return read(model, fitted(frames, shortest, size, processor))

    shape = jax_export.symbolic_shape(f"b, {config.num_frames}, h, w, {config.num_channels}")
    frames, result = jax.ShapeDtypeStruct(shape, jnp.uint8), "scores" if classifies else "features"
    if as_onnx:
        data = _onnx(program, frames, result)
    else:
        data = jax_export.export(jax.jit(program), platforms=platforms)(frames).serialize()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    description = {
        "frames": f"uint8 [B, {config.num_frames}, H, W, {config.num_channels}], 0 to 255, any B, H and W",
        "num_frames": config.num_frames,
        "frame_stride": processor.frame_stride,
        "result": f"{result} [B, labels]" if classifies else f"{result} [B, {config.hidden_size}]",
        "labels": list(config.id2label.values()) if classifies else None,
        "platforms": None if as_onnx else list(platforms),
    }
    file.with_name(f"{file.name}.json").write_text(json.dumps(description, indent=2) + "\n")


def _import_flatbuffers():
    try:
        import flatbuffers  # noqa: F401, of jax.export
    except ImportError as error:
        raise ImportError(f'StableHLO is written with flatbuffers: pip install ".[export]" ({error})') from None


def _import_jax2onnx():
    # They warn of libraries that are not here, and of types that they infer later; what is not known is an error.
    for name in ("jax2onnx", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import jax2onnx
    except ImportError as error:
        raise ImportError(f'ONNX is written by jax2onnx: pip install ".[onnx]" ({error})') from None
    return jax2onnx


def _onnx(program: Callable, frames: jax.ShapeDtypeStruct, result: str) -> bytes:
    """The program with an input `frames` and an output of the name `result`."""
    named = dict(model_name="videomae", input_names=["frames"], output_names=[result])
    try:
        return _import_jax2onnx().to_onnx(program, [frames], opset=OPSET, **named).SerializeToString()
    except NotImplementedError as error:
        raise ValueError(f"this model cannot be written as ONNX with the jax2onnx that is installed: {error}") from None


def fitted(
    frames: UInt8[Array, "B T H W C"], shortest_edge: int, size: tuple[int, int], processor: VideoMAEImageProcessor
) -> Float32[Array, "B T h w C"]:
    """The middle of the frames, h x w = `size` pixels after their shorter side was resized, normalised."""
    height, width = (jnp.asarray(side, jnp.float32) for side in frames.shape[2:4])
    scale = shortest_edge / jnp.minimum(height, width)
    out_height, out_width = size
    pixels = jax.image.scale_and_translate(
        frames.astype(jnp.float32),
        (*frames.shape[:2], out_height, out_width, frames.shape[-1]),
        spatial_dims=(2, 3),
        scale=jnp.stack([scale, scale]),
        translation=jnp.stack([(out_height - scale * height) / 2, (out_width - scale * width) / 2]),
        method="linear",
        antialias=True,
    )
    mean, deviation = (jnp.asarray(x, jnp.float32) for x in (processor.image_mean, processor.image_std))
    return (pixels * processor.rescale_factor - mean) / deviation


def main(arguments: list[str]) -> None:
    """The command; what the user can mend is one line."""
    parser = argparse.ArgumentParser(prog="python -m videomae_jax.inference.export", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's folder, a file or a Hugging Face Hub id")
    parser.add_argument("file", metavar="FILE", type=Path, help="what to write, such as model.stablehlo or model.onnx")
    parser.add_argument("--platforms", nargs="+", choices=PLATFORMS, help="of StableHLO (cpu cuda tpu)")
    options = parser.parse_args(arguments)
    with faults_as_lines("export"):
        export(options.checkpoint, options.file, platforms=options.platforms)
    print(f"{options.checkpoint}: {options.file}, {options.file}.json")


if __name__ == "__main__":
    main(sys.argv[1:])
