# syntax=docker/dockerfile:1
# ttt3r in a container. No container engine has built this file yet; its text is tested.
#
#   docker build -t ttt3r .
#   docker build -t ttt3r:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
#   docker run --rm -v "$PWD:/work" ttt3r run walk.mp4 --out run
#   docker run --rm --gpus all -v "$PWD:/work" ttt3r:cuda run walk.mp4 --out run --device cuda

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_VERSION=2.13.0
# Nothing of Debian is needed: PyAV and Pillow bring their own libraries.
# torch has a layer of its own, which a change of ttt3r leaves alone.
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch==${TORCH_VERSION}"
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[heic,eval]" \
    && useradd --create-home --uid 1000 ttt3r \
    && mkdir /work \
    && chown ttt3r /work
USER 1000
# Weights lie in a volume, so that they outlive the container.
ENV TTT3R_WEIGHTS=/home/ttt3r/.cache/ttt3r/weights
WORKDIR /work
ENTRYPOINT ["ttt3r"]
CMD ["--help"]
