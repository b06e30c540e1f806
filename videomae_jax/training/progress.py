"""What a run tells a person."""


def say(name: str, text: object) -> None:
    """Prints a line of what a command tells: a word, and what there is to say of it."""
    print(f"{name:9} {text}", flush=True)


def progress_line(step: int, total_steps: int, row: dict[str, float]) -> str:
    """One line for a person: where the run is, how it does, and when it ends."""
    left = round((total_steps - step) * row["step_ms"] / 1000)
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    relative = f"relative {row['relative_loss']:.3f}  " if "relative_loss" in row else ""
    mfu = f"MFU {row['mfu']:.1%}  " if "mfu" in row else ""
    return (
        f"step {step:>{len(str(total_steps))}}/{total_steps}  loss {row['loss']:.4f}  {relative}"
        f"lr {row['learning_rate']:.2e}  "
        f"{row['clips_per_second']:.1f} clips/s  {mfu}data wait {row['data_wait_fraction']:.0%}  "
        f"left {hours}:{minutes:02}:{seconds:02}"
    )


def measured_line(numbers: dict[str, float]) -> str:
    """One line for a person: what was measured by name, counts whole."""
    return "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )
