# This clone with its environment, for CPU or GPU:
#     docker build -t espnet_prune .
#     docker build -t espnet_prune:cuda --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
#     docker run --rm -v "$PWD/exp:/opt/espnet_prune/egs/synth/l0_conformer1/exp" --entrypoint \
#         egs/synth/l0_conformer1/run.sh espnet_prune
# BASE is Debian or Ubuntu with a Python of 3.11 to 3.13 in its packages.
ARG BASE=debian:12-slim
FROM ${BASE}

# Another index of PyTorch's wheels, such as one whose builds are for the CPU alone, is pip's variable PIP_EXTRA_INDEX_URL.
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates flite git python3 python3-venv sctk \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/espnet_prune
COPY . .
RUN utils/setup_env.sh --hf
ENV PATH=/opt/espnet_prune/.venv/bin:$PATH
ENTRYPOINT ["espnet-prune"]
CMD ["--help"]
