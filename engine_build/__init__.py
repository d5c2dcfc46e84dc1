"""From an ONNX file to proven TensorRT plans in the model folder that workers read.

Reading order, which is the order of a build:

    errors        what can be wrong, and what holds afterwards
    graph         the ONNX file against the feature schema and against TensorRT's operators (operators)
    calibration   rows that INT8 ranges are taken from: parquet_rows or topic_rows, sampling, coverage
    precision     FP32, FP16 and INT8 as ONNX graphs: regions, half, qdq, ranges (entropy), sensitivity
    evaluation    what a precision costs in accuracy, and the gate
    traffic       rows per commit and per batch that workers see -> a profile (traffic_prometheus, topic_rows)
    trt           TensorRT and TensorRT-RTX behind one adapter (trt_types, trt_weak, trt_log)
    prove         the plan against ONNX Runtime, within allowances
    choice        which precision is published; release, publish, report

`worker/` and this package never import each other; both import `schemas/`.
"""
