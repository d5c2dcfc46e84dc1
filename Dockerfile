# The worker as an image: a wheel built in the first stage, and in the second only what it needs to run.
#
#   docker build -t forecast-worker .                            ONNX Runtime on the CPU
#   docker build -t forecast-worker:gpu --build-arg EXTRAS=gpu .
#                                                              TensorRT (needs the NVIDIA container runtime to run)

FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY worker worker
COPY engine_build engine_build
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=""
RUN useradd --system --uid 10001 --no-create-home worker
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}" && rm -r /wheels
USER worker
ENV PYTHONUNBUFFERED=1
EXPOSE 9108
# `server.host` must be "0.0.0.0" for others to reach the port; the check itself stays inside the container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9108/live', timeout=2)"]
# Drains. Whoever sends it should wait for longer than the worker's `shutdown.grace_s` before killing.
STOPSIGNAL SIGTERM
ENTRYPOINT ["forecast-worker"]
CMD ["run", "--config", "/etc/forecast-worker/worker.toml"]
