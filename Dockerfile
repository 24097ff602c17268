# The environment of a cluster's nodes, and the project installed as a wheel.
#   docker build -t osasis-on-ray:gpu .                                           for nodes with NVIDIA GPUs
#   docker build -t osasis-on-ray:cpu --build-arg VARIANT=cpu .                   without
# Dependencies come before the code: an edit of the code installs no torch again.
ARG RAY_VERSION=2.60.0
ARG VARIANT=gpu

FROM rayproject/ray:${RAY_VERSION}-py311-cu130 AS base-gpu
# PyPI's torch wheels for Linux bring CUDA.
ENV PIP_EXTRA_INDEX_URL=""

FROM rayproject/ray:${RAY_VERSION}-py311-cpu AS base-cpu
# A wheel of torch without CUDA is 200 MB instead of several GB; its version (2.14.1+cpu) satisfies the pin.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

# hadolint ignore=DL3006
FROM base-${VARIANT} AS final
WORKDIR /opt/osasis
COPY --chown=ray:users pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\\n')" \
        > requirements.txt \
    && pip install --no-cache-dir -r requirements.txt
COPY --chown=ray:users setup.py README.md LICENSE NOTICE ./
COPY --chown=ray:users samples samples
COPY --chown=ray:users catalog catalog
COPY --chown=ray:users cluster cluster
COPY --chown=ray:users osasis osasis
COPY --chown=ray:users jobs jobs
RUN pip install --no-cache-dir --no-deps .
