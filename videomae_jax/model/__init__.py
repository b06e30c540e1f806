"""The models: arrays in, arrays out. No files, no video, no training."""
