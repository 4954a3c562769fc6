# Two images for docker-compose.yaml: `workers` without Airflow, `airflow` with it. In both, the
# package is installed in place, so that it finds its profiles and Flux files. Both run as user
# 50000 of group 0, like Airflow's image, because they share the volume of the tokens.

# --- Workers: bridge, sink, simulated fleet, provisioning ------------------------------------
FROM python:3.11.14-slim-bookworm AS workers-build
WORKDIR /opt/headrace
# An empty package installs the dependencies, in a layer that changes of the code do not affect.
COPY pyproject.toml constraints.txt ./
RUN mkdir -p include/headrace && touch include/headrace/__init__.py \
    && python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --constraint constraints.txt --editable .
COPY include include
# The containers' file systems are read-only, so Python can't compile modules later.
RUN /opt/venv/bin/python -m compileall -q include/headrace

FROM python:3.11.14-slim-bookworm AS workers
# The folders give new volumes their owner. Files with logins get the group of mosquitto.
RUN useradd --uid 50000 --gid 0 --home-dir /opt/headrace --no-create-home \
        --shell /usr/sbin/nologin headrace \
    && install --directory --owner 50000 --group 0 --mode 0750 /var/lib/headrace \
        /var/lib/headrace/tokens /var/lib/headrace-sink /var/lib/headrace-airflow \
        /var/lib/headrace/certificates /var/lib/headrace-servers \
    && install --directory --owner 50000 --group 1883 --mode 2750 /var/lib/headrace/mqtt
COPY --from=workers-build /opt/venv /opt/venv
COPY --from=workers-build --chown=50000:0 /opt/headrace /opt/headrace
COPY --chown=50000:0 docker/healthcheck.py /opt/headrace/docker/
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/headrace
USER 50000:0
ENTRYPOINT ["headrace"]

# --- Airflow ---------------------------------------------------------------------------------
FROM apache/airflow:3.3.2-python3.11 AS airflow
USER root
RUN install --directory --owner 50000 --group 0 --mode 0775 /opt/headrace \
    && install --directory --owner 50000 --group 0 --mode 0750 /var/lib/headrace \
        /var/lib/headrace/tokens
USER 50000:0
WORKDIR /opt/headrace
COPY --chown=50000:0 pyproject.toml constraints.txt ./
# `sync` removes the other providers of Airflow's image, so that the image holds exactly the
# packages of `make up`.
RUN mkdir -p include/headrace && touch include/headrace/__init__.py \
    && uv pip compile --quiet --no-cache --extra airflow --constraint constraints.txt \
        --output-file /tmp/lock.txt pyproject.toml \
    && uv pip sync --no-cache --only-binary :all: --compile-bytecode /tmp/lock.txt \
    && uv pip install --no-cache --no-deps --editable . \
    && rm /tmp/lock.txt
COPY --chown=50000:0 docker/healthcheck.py docker/
COPY --chown=50000:0 native/config/pools.json docker/
# First on PATH: it derives Airflow's configuration from the settings.
COPY --chown=50000:0 docker/airflow.py bin/airflow
COPY --chown=50000:0 include include
COPY --chown=50000:0 plugins plugins
COPY --chown=50000:0 dags dags
# Otherwise each new container compiles everything that it imports.
RUN python -m compileall -q include/headrace plugins dags
ENV PATH=/opt/headrace/bin:$PATH \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/headrace/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/headrace/plugins \
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=/opt/airflow/passwords.json \
    AIRFLOW__API__HOST=0.0.0.0 \
    AIRFLOW__API__PORT=8080
