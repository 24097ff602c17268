# The environment of a cluster's nodes. The project itself travels as Ray's working directory.
FROM rayproject/ray:2.60.0-py311-cu130
WORKDIR /opt/osasis
COPY --chown=ray:users pyproject.toml README.md LICENSE NOTICE ./
COPY --chown=ray:users catalog catalog
COPY --chown=ray:users cluster cluster
COPY --chown=ray:users jobs jobs
COPY --chown=ray:users osasis osasis
RUN pip install --no-cache-dir .
