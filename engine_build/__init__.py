"""From an ONNX file to proven TensorRT plans in the model folder that workers read.

Reading order, which is the order of a build:

    errors        what can be wrong, and what holds afterwards
    graph         the ONNX file against the feature schema and against TensorRT's operators (operators)
    calibration   rows that INT8 ranges are taken from: parquet_rows or topic_rows, sampling, coverage
    precision     FP32, FP16 and INT8 as ONNX graphs: regions, half, quantize, sensitivity
    evaluation    what a precision costs in accuracy, and the gate
    traffic       batch sizes that workers see -> a profile (traffic_prometheus, traffic_topic)

`worker/` and this package never import each other; both import `schemas/`.
"""
