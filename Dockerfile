# unstill with CUDA 13: decoding by NVDEC through DALI, training by PyTorch.
#
#     docker build -t unstill .
#     docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" unstill bench facts
#     docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" unstill train own_small --data data/own/train
#
# The CUDA libraries come with the wheels of PyTorch and DALI; the base gives the system's. The host needs a driver for
# CUDA 13 (580 or newer) and the NVIDIA container toolkit.
# gcc and Python's headers: Triton compiles the launchers of its kernels when they are first used.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

FROM base AS wheel
WORKDIR /source
COPY . .
RUN python3 -m venv /build && /build/bin/python -m pip wheel --quiet --no-deps --wheel-dir /wheels .

FROM base
COPY --from=wheel /wheels /wheels
COPY docker/install.sh requirements/ci.txt /wheels/
RUN /wheels/install.sh "$(ls /wheels/unstill-*.whl)" /opt/unstill --constraint /wheels/ci.txt && rm -rf /wheels
# video: NVDEC's library (libnvcuvid), which the container toolkit leaves out by default
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    PATH=/opt/unstill/bin:$PATH
RUN useradd --create-home --uid 1001 unstill
USER unstill
WORKDIR /work
ENTRYPOINT ["unstill"]
CMD ["--help"]
