"""From a recipe and videos to a trained model: mesh, optimizer, tasks, state, checkpoints, metrics and the loop."""
