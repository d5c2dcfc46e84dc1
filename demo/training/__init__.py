"""Trains the reference models on real data, exports them to ONNX and says how good they are."""
