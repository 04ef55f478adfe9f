# Carillon for a deployment with PostgreSQL and Valkey beside it: see compose.yaml.
FROM python:3.13-slim AS build
WORKDIR /carillon
RUN python -m venv /opt/carillon
ENV PATH=/opt/carillon/bin:$PATH
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY workers workers
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --create-home --home-dir /data carillon
COPY --from=build /opt/carillon /opt/carillon
ENV PATH=/opt/carillon/bin:$PATH \
    CARILLON_HOST=0.0.0.0 \
    CARILLON_DATA_DIR=/data \
    CARILLON_LOG_FORMAT=json
USER carillon
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["carillon"]
CMD ["run"]
